"""The report as people meet it: in a real browser, wide and narrow, light and dark, by mouse and by keys."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ebsc_core.config.loading import load_config
from ebsc_core.curation.decide import merge_clusters, name_clusters
from ebsc_core.plugins.registry import Registry
from ebsc_core.report import rewrite_report
from ebsc_core.runs.run import run
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.progress import Progress

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
QUICK = {"train.epochs": 0, "coefficients.name": "knn", "cache": "none"}
# What a file name may hold.
NASTY = (
    b'a"b',
    b"a'b",
    b"line\nbreak",
    b"<script>alert(1)</script>".replace(b"/", b""),
    b"\xff\xfe bytes",
    b"<img src=x onerror=alert(1)>",
    b"-->",
    b"&amp;",
    b"{{ 7 * 7 }}",
    b"x" * 200,
    "turned \u202e round".encode(),
    b"\x1b[31m",
)


def finished(folder: Path, **flags: Any) -> Path:
    """The report of a quick run."""
    settings = {key.replace("__", "."): value for key, value in flags.items()}
    config, warned = load_config(None, [], QUICK | settings | {"out": str(folder / "run")}), []
    assert run(config, Registry(), Progress())
    began = time.process_time()
    report = rewrite_report(folder / "run", Registry(), warned.append)
    assert time.process_time() - began < 20
    assert warned == []
    return report


def digits(folder: Path, data_dir: Path) -> Path:
    return finished(folder, backbone__name="identity", data__limit=600)


def cifar(folder: Path, data_dir: Path) -> Path:
    return finished(
        folder, backbone__name="pca", data__name=str(data_dir / "cifar10-test.zip"), data__limit=2000
    )


def nasty(folder: Path, data_dir: Path) -> Path:
    photos = os.fsencode(folder) + b"/<b>\"'&\xff"
    os.mkdir(photos)
    generator = np.random.default_rng(0)
    for i in range(60):
        pixels = generator.integers(0, 90, (20, 30, 3), np.uint8)
        pixels[..., i % 3] += 150
        Image.fromarray(pixels).save(folder / "one.png")
        if i < len(NASTY):
            shutil.copy(folder / "one.png", photos + b"/copy of " + NASTY[i] + b".png")
        os.rename(folder / "one.png", photos + b"/" + NASTY[i % len(NASTY)] + b"%d.png" % i)
    return finished(folder, backbone__name="identity", data__name=os.fsdecode(photos), n_clusters=3)


def many(folder: Path, data_dir: Path) -> Path:
    """More classes and clusters than a table has room for."""
    labels = np.arange(600) % 60
    images = np.random.default_rng(0).integers(0, 60, (60, 8, 8), np.uint8)[labels] * 4
    np.savez(folder / "many.npz", images=images, labels=labels * 1_000_003)
    return finished(
        folder, backbone__name="identity", data__name=str(folder / "many.npz"), clusterer__name="KMeans"
    )


def decided(folder: Path, data_dir: Path) -> Path:
    """Clusters with names, two of which are merged."""
    digits(folder, data_dir)
    named = name_clusters(SavedRun(folder / "run"), {2: "herbs & 'trees'", 5: "{{ 7 + 7 }}", 7: "Herb"})
    merge_clusters(named, [3, 8])
    return rewrite_report(folder / "run", Registry(), lambda warning: None)


MAKERS: dict[str, Callable[[Path, Path], Path]] = {
    "digits": digits,
    "cifar": cifar,
    "nasty": nasty,
    "many": many,
    "decided": decided,
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The report of a run, by its name, made once."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        data_dir = os.environ.get("EBSC_DATA_DIR", "")
        if name == "cifar" and not Path(data_dir, "cifar10-test.zip").is_file():
            pytest.skip("EBSC_DATA_DIR holds no cifar10-test.zip")
        if name not in made:
            made[name] = MAKERS[name](tmp_path_factory.mktemp(name), Path(data_dir))
        return made[name]

    return make


@pytest.fixture
def opened(browser: Any, reports: Callable[[str], Path]) -> Iterator[Callable[..., Any]]:
    """Open a report; what the browser complains of or asks for fails the test when it ends."""
    contexts, complaints = [], []

    def open_it(name: str, size: dict[str, int] = WIDE, scheme: str = "light") -> Any:
        context = browser.new_context(viewport=size, color_scheme=scheme, has_touch=size == NARROW)
        contexts.append(context)
        page, uri = context.new_page(), reports(name).as_uri()
        page.on("console", lambda message: complaints.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        page.on(
            "request",
            lambda request: request.url.startswith(("data:", uri)) or complaints.append(request.url),
        )
        page.goto(uri)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert complaints == []


def point(page: Any) -> str:
    return page.text_content("#point")


def fill(page: Any, selector: str) -> str:
    return page.eval_on_selector(selector, "dot => getComputedStyle(dot).fill")


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_anyone_can_read_it(opened, axe: str, name: str, size: dict[str, int], scheme: str) -> None:
    page = opened(name, size, scheme)
    for details in page.query_selector_all("details"):
        details.evaluate("details => details.open = true")
    page.evaluate(axe)
    result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    grave = [
        f"{found['impact']}: {found['id']}: {found['nodes'][0]['html'][:200]}"
        for found in result["violations"]
        if found["impact"] in ("serious", "critical")
    ]
    assert grave == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("name", MAKERS)
def test_pictures_are_there_and_the_file_is_small(opened, reports, name: str) -> None:
    page = opened(name)
    broken = "[...document.images].filter(image => !image.complete || !image.naturalWidth).length"
    assert page.evaluate("document.images.length") > 30
    assert page.evaluate(broken) == 0
    assert page.eval_on_selector(".affinity image", "image => image.href.baseVal.length") > 100
    assert reports(name).stat().st_size < 5_000_000


def test_outliers_and_duplicates_are_shown_and_enlarged(opened) -> None:
    page = opened("nasty")
    assert page.locator("#finds .group").count() == 8
    assert page.locator("#finds .group img").count() == 16
    picture = page.locator("#finds .group img").first
    before = picture.bounding_box()["width"]
    picture.hover()
    page.wait_for_timeout(300)
    assert picture.bounding_box()["width"] > 1.5 * before


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_scheme(opened, scheme: str) -> None:
    page = opened("digits", WIDE, scheme)
    red = int(page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]"))
    assert (red > 200) == (scheme == "light")


class TestMap:
    def test_by_keyboard_and_without_a_trap(self, opened) -> None:
        page = opened("digits")
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "plane":
                break
        else:
            pytest.fail("Tab does not lead to the map")
        page.keyboard.press("ArrowRight")
        first = point(page)
        assert "cluster" in first
        assert "confidence" in first
        for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
            page.keyboard.press(key)
        seen = set()
        for _ in range(10):
            page.keyboard.press("PageDown")
            seen.add(point(page).split("cluster ")[1].split(",")[0])
        assert seen == {str(number) for number in range(10)}
        assert page.is_visible("#picture")
        assert page.get_attribute("#ring", "visibility") == "visible"
        page.keyboard.press("Escape")
        assert point(page) == ""
        assert page.is_hidden("#picture")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") != "plane"

    def test_by_mouse(self, opened) -> None:
        page = opened("cifar")
        dot = page.query_selector("#points circle:nth-child(7)")
        dot.scroll_into_view_if_needed()
        box = dot.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        assert ".jpg: cluster" in point(page)
        levels = "canvas => new Set(canvas.getContext('2d').getImageData(0, 0, 96, 96).data).size"
        assert page.eval_on_selector("#picture", levels) > 20
        assert page.locator("#ties line").count() == page.locator("#ties-pictures canvas").count() > 0

    def test_by_touch(self, opened) -> None:
        page = opened("digits", NARROW)
        page.locator("#points circle").nth(20).tap(force=True)
        assert "cluster" in point(page)

    def test_colors_are_those_of_clusters_or_classes(self, opened) -> None:
        page = opened("digits")
        cluster, label = ("#points .k0:not(.l0)", "#points .l0")
        page.check("input[value=label]")
        by_label = fill(page, label)
        assert len({fill(page, f"#points .l{i}") for i in range(10)}) == 10
        page.check("input[value=cluster]")
        assert len({fill(page, f"#points .k{i}") for i in range(10)}) == 10
        assert page.evaluate(
            "colour => [...document.querySelectorAll('.of-cluster .chip')].some("
            "chip => getComputedStyle(chip).backgroundColor == colour)",
            by_label,
        )
        assert fill(page, cluster) == fill(page, "#points .k0")

    def test_a_cluster_alone(self, opened) -> None:
        page = opened("digits")
        button = page.locator("[data-cluster='3']")
        button.focus()
        page.keyboard.press("Enter")
        assert button.get_attribute("aria-pressed") == "true"
        assert page.locator("#points .k3.dim").count() == 0
        assert page.locator("#points .k4:not(.dim)").count() == 0
        page.keyboard.press("Enter")
        assert page.locator("#points .dim").count() == 0


def test_clusters_are_found_by_name_and_number(opened) -> None:
    page = opened("decided")
    clusters = "#clusters > .cluster:not([hidden])"
    assert page.locator(clusters).count() == 9
    for words, numbers in {"HERB": ["2", "7"], "8": [], "3": ["3"], "{{ 7": ["5"], "": None}.items():
        page.fill("#find", words)
        found = [one.get_attribute("data-number") for one in page.locator(clusters).all()]
        assert found == (numbers if numbers is not None else [*"012345679"])
        assert page.text_content("#found") == (f"{len(found)} of 9" if words else "")
    assert page.text_content("h1").endswith("9 clusters")
    page.focus("#plane")
    for _ in range(9):
        page.keyboard.press("PageDown")
        if "cluster 2" in point(page):
            break
    assert "cluster 2 herbs & 'trees'," in point(page)
    page.click("text=Clusters as a tree")
    page.click("pre a:has-text('7 Herb')")
    assert page.evaluate("location.hash") == "#cluster-7"


def test_names_are_text_whatever_they_hold(opened) -> None:
    page = opened("nasty")
    assert page.locator("script").count() == 2
    assert page.locator("[onerror]").count() == 0
    assert page.locator("b").count() == 0
    assert page.text_content("h1").startswith("<b>\"'&\ufffd")
    said = page.evaluate("[...document.images].map(image => image.alt).join(' ')")
    for expected in ('a"b', "a'b", "line␊break", "<script>alert(1)<script>", "\ufffd\ufffd bytes"):
        assert expected in said
    for expected in ("onerror=alert(1)>", "-->", "&amp;", "{{ 7 * 7 }}", "turned \ufffd round", "␛[31m"):
        assert expected in said
    page.focus("#plane")
    page.keyboard.press("PageDown")
    assert ".png" in point(page)


def test_without_scripts_everything_but_the_hover_is_there(browser, reports) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(reports("digits").as_uri())
    assert page.locator("#points circle").count() == 600
    assert page.locator(".cluster img").count() > 100
    context.close()

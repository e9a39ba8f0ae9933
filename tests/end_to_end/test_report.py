"""``ebsc report`` and the page that a run ends with, as far as no browser is needed."""

from __future__ import annotations

import json
import re
import time
import webbrowser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from ebsc_core.data.features.forms import ROW_FORMS
from ebsc_core.report.page import Page
from ebsc_core.runs.store.saved import SavedRun

QUICK = ("--backbone", "identity", "--epochs", "0", "--coefficients", "knn", "--out", "run")


def page(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Unlabelled: 30 images of three kinds."""
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(30):
        pixels = generator.integers(0, 60, (24, 32, 3), np.uint8)
        pixels[..., i % 3] += 150
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return folder


def test_a_report_can_be_written_anew(ebsc, tmp_path: Path) -> None:
    assert ebsc("run", *QUICK, "--limit", "200").code == 0
    assert not (tmp_path / "run/report.html").exists()
    done = ebsc("report", "run")
    assert (done.code, done.out, done.err) == (
        0,
        "reading the images of the run again: digits\nreport: run/report.html\n",
        "",
    )
    first = page(tmp_path / "run")
    for said in ("digits: 10 clusters", "ACC", "Silhouette", "Cluster 9", "ebsc run --config run/run.toml"):
        assert said in first
    assert f"knn on {ROW_FORMS[SavedRun(tmp_path / 'run').config.whiten]} features" in first
    assert first.count("<img ") > 100
    assert ebsc("report", "run").code == 0
    assert page(tmp_path / "run") == first


def test_the_same_page_ends_a_run(ebsc, tmp_path: Path, with_reports: None) -> None:
    assert ebsc("run", *QUICK, "--limit", "150").code == 0
    first = page(tmp_path / "run")
    assert ebsc("report", "run").code == 0
    assert page(tmp_path / "run") == first


def test_it_shows_what_was_decided(ebsc, tmp_path: Path) -> None:
    assert ebsc("run", *QUICK, "--limit", "200").code == 0
    assert ebsc("report", "run").code == 0
    first = page(tmp_path / "run")
    assert ebsc("name", "run", "4", "herbs & trees").code == 0
    assert ebsc("merge", "run", "3", "8").code == 0
    assert ebsc("report", "run").code == 0
    text = page(tmp_path / "run")
    for said in (
        "digits: 9 clusters",
        "Cluster 4 herbs &amp; trees",
        "put into 9 clusters",
        "merged or split since",
    ):
        assert said in text
        assert said not in first
    assert "Cluster 8" in first
    assert "Cluster 8" not in text
    assert "are empty" not in text
    assert ebsc("name", "run", "--undo").code == 0
    assert ebsc("name", "run", "--undo").code == 0
    assert ebsc("report", "run").code == 0
    assert page(tmp_path / "run") == first


def test_a_run_may_leave_it_out(ebsc, tmp_path: Path, with_reports: None) -> None:
    done = ebsc("run", *QUICK, "--limit", "100", "--no-report")
    assert "report:" not in done.out
    assert not (tmp_path / "run/report.html").exists()


@pytest.mark.parametrize("error", [ValueError("no such\nthing"), KeyboardInterrupt()])
def test_a_report_that_fails_costs_no_run(
    ebsc, tmp_path: Path, with_reports: None, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(page: Page) -> str:
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(Page, "html", fail)
        done = ebsc("run", *QUICK, "--limit", "100")
    assert done.code == 0
    assert "run directory: run" in done.out
    assert "report:" not in done.out
    assert "the run is complete, but its report could not be written" in done.err
    assert "ebsc report run" in done.err
    assert ebsc("report", "run").code == 0


def test_pictures_lead_to_their_files(ebsc, tmp_path: Path, photos: Path) -> None:
    odd = photos / "a #1: 5 %.png"
    (photos / "00.png").rename(odd)
    assert ebsc("run", *QUICK, "--data", str(photos), "--n-clusters", "3").code == 0
    assert ebsc("report", "run").code == 0
    leads = [unquote(found) for found in re.findall(r'<a href="([^"#]+)"><img', page(tmp_path / "run"))]
    files = {(tmp_path / "run" / found).resolve() for found in leads}
    assert files <= set(photos.iterdir())
    assert odd in files


def test_pictures_of_arrays_lead_nowhere(ebsc, tmp_path: Path) -> None:
    assert ebsc("run", *QUICK, "--limit", "100").code == 0
    assert ebsc("report", "run").code == 0
    assert not re.search(r"<a [^>]*><img", page(tmp_path / "run"))


def test_images_that_have_gone(ebsc, tmp_path: Path, photos: Path) -> None:
    assert ebsc("run", "--data", photos, "--n-clusters", "3", *QUICK).code == 0
    assert ebsc("report", "run").code == 0
    assert "<img " in page(tmp_path / "run")
    photos.rename(tmp_path / "elsewhere")
    before = page(tmp_path / "run")
    refused = ebsc("report", "run")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--data says where they are now; run/report.html stays as it is" in refused.err
    assert page(tmp_path / "run") == before
    (tmp_path / "run/report.html").unlink()
    (tmp_path / "run/report.html").symlink_to("/dev/zero")
    linked = ebsc("report", "run")
    assert linked.code == 2
    assert "report.html is a link" in linked.err
    (tmp_path / "run/report.html").unlink()
    done = ebsc("report", "run")
    assert done.code == 0
    assert "warning: the report has no pictures" in done.err
    text = page(tmp_path / "run")
    assert "<img " not in text
    assert "There are no pictures in this report" in text
    assert "07.png" in text


def test_an_image_that_cannot_be_read_any_more(ebsc, tmp_path: Path, photos: Path) -> None:
    assert ebsc("run", "--data", photos, "--n-clusters", "3", *QUICK, "--set", "data.stream=true").code == 0
    assert ebsc("report", "run").code == 0
    for path in photos.iterdir():
        path.write_bytes(path.read_bytes()[:200])
    assert "stays as it is, with its pictures" in ebsc("report", "run").err
    (tmp_path / "run/report.html").unlink()
    done = ebsc("report", "run")
    assert done.code == 0, done.err
    assert "There are no pictures in this report" in page(tmp_path / "run")


def test_a_run_without_labels_has_no_scores(ebsc, tmp_path: Path, photos: Path) -> None:
    assert ebsc("run", "--data", photos, "--n-clusters", "3", *QUICK).code == 0
    assert ebsc("report", "run").code == 0
    text = page(tmp_path / "run")
    assert "Clusters and classes" not in text
    assert "ACC" not in text
    assert "Colour by" not in text


def test_held_out_images_a_dictionary_and_no_affinity(ebsc, tmp_path: Path) -> None:
    more = ("--limit", "300", "--dictionary-size", "150", "--set", "protocol=train-test")
    assert ebsc("run", *QUICK, *more).code == 0
    assert ebsc("report", "run").code == 0
    text = page(tmp_path / "run")
    assert "150 of them were clustered" in text
    assert "60 more were held out" in text
    assert "the 60 scored images" in text
    assert "A sample of 150 of 240 images" in text
    assert "150 images by 150" in text
    for name in ("affinity.npz", "manifest"):
        (tmp_path / "run" / name).unlink()
    assert ebsc("report", "run").code == 0
    assert 'id="affinity"' not in page(tmp_path / "run")


def test_the_map_shows_a_class_that_no_held_out_image_has(ebsc, tmp_path: Path) -> None:
    assert ebsc("run", *QUICK, "--limit", "40", "--set", "protocol=train-test").code == 0
    table = (tmp_path / "run/assignments.csv").read_text().splitlines()[1:]
    held_out = {line.split(",")[3] for line in table if line.endswith(",test")}
    assert held_out < {line.split(",")[3] for line in table}
    done = ebsc("report", "run")
    assert done.code == 0, done.err
    assert "the 8 scored images" in page(tmp_path / "run")


def test_many_clusters(ebsc, tmp_path: Path) -> None:
    assert ebsc("run", *QUICK, "--limit", "400", "--n-clusters", "105", "--clusterer", "KMeans").code == 0
    assert ebsc("report", "run").code == 0
    text = page(tmp_path / "run")
    assert text.count('<article class="cluster" aria-labelledby="cluster-') == 100
    assert re.search(r"The 100 largest are shown; \d+ more", text)
    assert "a column for each of 1" in text
    assert len(text) < 5_000_000


def test_numbers_of_clusters_that_were_tried(ebsc, tmp_path: Path) -> None:
    assert ebsc("run", *QUICK, "--limit", "100").code == 0
    metrics = tmp_path / "run/metrics.json"
    candidates = [{"k": 9, "eigengap": 0.1}, {"k": 10, "eigengap": 0.2}]
    tried = {"n_clusters": {"chosen": 9, "candidates": candidates}}
    metrics.write_text(json.dumps(json.loads(metrics.read_text()) | tried))
    (tmp_path / "run/manifest").unlink()
    assert ebsc("report", "run").code == 0
    assert "Eigengap by number of clusters" in page(tmp_path / "run")


def test_a_run_on_features(ebsc, tmp_path: Path, photos: Path) -> None:
    rows = np.repeat(np.eye(3), 10, axis=0) + 0.05 * np.random.default_rng(0).normal(size=(30, 3))
    np.save(tmp_path / "rows.npy", rows)
    flags = ("--n-clusters", "3", "--coefficients", "knn")
    assert ebsc("cluster", "rows.npy", *flags, "--out", "bare").code == 0
    done = ebsc("report", "bare")
    assert (done.code, done.err) == (0, "")
    text = page(tmp_path / "bare")
    for said in ("rows.npy: 3 clusters", "30 rows were put", "ebsc run --config bare/run.toml"):
        assert said in text
    assert "<img " not in text
    assert "no pictures" not in text
    assert ebsc("cluster", "rows.npy", *flags, "--images", photos, "--out", "shown").code == 0
    assert ebsc("report", "shown").code == 0
    assert "<img " in page(tmp_path / "shown")


def test_what_is_no_run_is_one_line(ebsc, tmp_path: Path) -> None:
    done = ebsc("report", "nowhere")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "nowhere does not exist" in done.err
    assert ebsc("run", *QUICK, "--limit", "100").code == 0
    (tmp_path / "run/assignments.csv").write_text("image\n")
    done = ebsc("report", "run")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "assignments.csv is not the file that was written" in done.err
    assert not (tmp_path / "run/report.html").exists()


def test_it_is_shown_in_the_browser(ebsc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ebsc("run", *QUICK, "--limit", "100").code == 0
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert ebsc("report", "run", "--open").code == 0
    assert opened == [(tmp_path / "run/report.html").resolve().as_uri()]


def test_many_images_take_no_longer(ebsc, tmp_path: Path, data_dir: Path) -> None:
    flags = ("--data", data_dir / "mnist.npz", "--limit", "8000", "--dictionary-size", "3000")
    assert ebsc("run", *QUICK, *flags).code == 0
    began = time.process_time()
    assert ebsc("report", "run").code == 0
    assert time.process_time() - began < 20
    assert (tmp_path / "run/report.html").stat().st_size < 5_000_000

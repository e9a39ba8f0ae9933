"""Runs side by side: figures, settings that differ, and clusters that agree."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from ebsc_core.clustering.metrics import clustering_accuracy
from ebsc_core.report.compare_page import figures, page
from ebsc_core.runs.store.compare import compare, match, match_images
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.errors import EbscError

METRICS = {
    "images": 6,
    "scores": {"acc": 0.5, "nmi": 0.25, "ari": 0.125},
    "label_free": {
        "silhouette": None,
        "eigengap": 0.1,
        "within_cluster_mass": 0.9,
        "cluster_sizes": [3, 3, 0],
    },
    "seconds": {"training": 2.0},
}
NAMES = [f"{letter}.png" for letter in "abcdef"]


def saved(
    path: Path,
    clusters: list[int],
    names: list[str] = NAMES,
    toml: str = "[data]\nname = 'x'",
    **metrics: object,
) -> SavedRun:
    path.mkdir()
    (path / "run.toml").write_text(toml)
    (path / "metrics.json").write_text(json.dumps(METRICS | metrics))
    lines = [f"{name},{cluster},1.0" for name, cluster in zip(names, clusters, strict=True)]
    (path / "assignments.csv").write_text("\n".join(["image,cluster,confidence", *lines]) + "\n")
    (path / "features.h5").touch()
    return SavedRun(path)


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


class TestAgreement:
    def test_is_counted_on_what_both_have_in_a_cluster(self, tmp_path: Path) -> None:
        one = saved(tmp_path / "one", [0, 0, 1, 1, 1, -1])
        two = saved(tmp_path / "two", [5, 3, 3, 3, 0, 0], [*NAMES[::-1][:5], "z.png"])
        (found,) = compare([one, two]).agreements
        assert (found.images, found.ari) == (4, adjusted_rand_score([0, 1, 1, 1], [0, 3, 3, 3]))

    def test_of_every_pair(self, tmp_path: Path) -> None:
        runs = [saved(tmp_path / name, [0, 0, 0, 1, 1, 1]) for name in ("one", "two", "three")]
        found = compare(runs)
        assert [(a.first, a.second, a.ari) for a in found.agreements] == [(0, 1, 1), (0, 2, 1), (1, 2, 1)]

    def test_of_the_first_run_with_each_other_cluster_by_cluster(self, tmp_path: Path) -> None:
        one, two, three = (
            saved(tmp_path / name, clusters)
            for name, clusters in {
                "one": [0, 0, 0, 0, 1, 1],
                "two": [1, 1, 1, 1, 0, 0],
                "three": [0, 0, 1, 1, 2, 2],
            }.items()
        )
        found = compare([one, two, three])
        tables = {other: table.counts.tolist() for other, table in found.contingencies.items()}
        assert tables == {1: [[4, 0], [0, 2]], 2: [[2, 0, 2], [0, 2, 0]]}
        assert page(found).count("<svg") == 2
        assert "columns are the clusters of run 3" in " ".join(page(found).split())

    @pytest.mark.parametrize("names", [list("012345"), [f"train/{i}" for i in range(6)]])
    def test_positions_in_other_data_are_other_images(self, tmp_path: Path, names: list[str]) -> None:
        one = saved(tmp_path / "one", [0, 0, 0, 1, 1, 1], names)
        two = saved(tmp_path / "two", [0, 0, 0, 1, 1, 1], names)
        assert compare([one, two]).agreements[0].images == 6
        other = saved(tmp_path / "other", [0, 0, 0, 1, 1, 1], names, "[data]\nname = 'y'")
        with pytest.raises(EbscError, match="no image in common"):
            compare([one, two, other])

    def test_files_of_a_copied_folder_are_the_same(self, tmp_path: Path) -> None:
        one = saved(tmp_path / "one", [0, 0, 0, 1, 1, 1])
        other = saved(tmp_path / "other", [0, 0, 0, 1, 1, 1], NAMES, "[data]\nname = 'y'")
        assert compare([one, other]).agreements[0].images == 6


class TestMatching:
    def test_largest_first_and_partners_on_the_diagonal(self) -> None:
        a = np.repeat([7, 2, 4], [2, 5, 3])
        b = np.array([1, 1, 0, 0, 0, 0, 9, 9, 9, 0])
        found = match(a, b)
        assert (found.rows, found.columns) == ([2, 4, 7], [0, 9, 1])
        assert found.counts.tolist() == [[4, 1, 0], [1, 2, 0], [0, 0, 2]]
        assert found.matched == 8

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(3, 6)), min_size=1, max_size=60))
    def test_nothing_is_lost(self, pairs: list[tuple[int, int]]) -> None:
        a, b = np.array(pairs).T
        found = match(a, b)
        assert sorted(found.rows) == sorted(set(a.tolist()))
        assert sorted(found.columns) == sorted(set(b.tolist()))
        for i, row in enumerate(found.rows):
            for j, column in enumerate(found.columns):
                assert found.counts[i, j] == ((a == row) & (b == column)).sum()
        assert found.matched / len(a) == pytest.approx(clustering_accuracy(a, b))


def test_figures_and_differences(tmp_path: Path) -> None:
    one = saved(tmp_path / "one", [0] * 6)
    two = saved(tmp_path / "two", [0] * 6, scores={"acc": 0.75, "nmi": 0.25, "ari": 0.0, "knn_accuracy": 0.9})
    unlabeled = saved(tmp_path / "three", [0] * 6, scores=None)
    found = compare([one, two, unlabeled])
    assert found.figures["acc"] == [0.5, 0.75, None]
    assert found.differences("acc") == [0, 0.25, None]
    assert found.figures["knn_accuracy"] == [None, 0.9, None]
    assert ("knn-accuracy", [("–", ""), ("90.0", ""), ("–", "")]) in figures(found)
    assert found.figures["clusters"] == [2, 2, 2]
    assert "silhouette" not in found.figures


def test_only_settings_that_differ(tmp_path: Path) -> None:
    one = saved(
        tmp_path / "one", [0] * 6, toml="seed = 1\ntop_k = 3\ndata.name = 'x'\n[provenance]\ncreated = 'now'"
    )
    two = saved(
        tmp_path / "two",
        [0] * 6,
        toml="seed = 1\ntop_k = 4\ndata.name = 'x'\n[train]\nlr = 0.1\n[provenance]\nx = 2",
    )
    assert compare([one, two]).settings == {"top_k": [3, 4], "train.lr": [None, 0.1]}


class TestThePage:
    def test_is_escaped_and_needs_no_other(self, tmp_path: Path) -> None:
        evil = "<script>alert(1)</script>"
        one = saved(tmp_path / "<i>one", [0, 0, 1, 1, 2, 2], toml=f"data.name = '{evil}'")
        two = saved(tmp_path / "two", [0, 1, 1, 1, 2, 2])
        text = page(compare([one, two]))
        tags = Tags(text).found
        assert not {"script", "i", "link", "img"} & {tag for tag, _ in tags}
        assert not [attributes for _, attributes in tags if attributes.keys() & {"src", "href"}]
        assert "http" not in text
        assert "&lt;script&gt;" in text
        assert "prefers-color-scheme: dark" in text

    def test_shows_every_pair_of_clusters(self, tmp_path: Path) -> None:
        one = saved(tmp_path / "one", [0, 0, 1, 1, 2, 2])
        two = saved(tmp_path / "two", [0, 1, 1, 1, 2, 2])
        text = page(compare([one, two]))
        cells = [attributes for tag, attributes in Tags(text).found if tag == "rect"]
        assert [(cell["x"], cell["y"]) for cell in cells] == [("0", "0"), ("1", "0"), ("1", "1"), ("2", "2")]
        assert [cell["opacity"] for cell in cells] == ["0.50", "0.50", "1.00", "1.00"]
        assert re.findall(r"<title>(.*?)</title>", text)[1:] == [
            "1 images: cluster 0 and 0",
            "1 images: cluster 0 and 1",
            "2 images: cluster 1 and 1",
            "2 images: cluster 2 and 2",
        ]

    def test_stays_small(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        names = [f"{i}.png" for i in range(20_000)]
        clusters = rng.integers(0, 500, len(names))
        moved = np.where(rng.random(len(names)) < 0.05, rng.integers(0, 500, len(names)), clusters)
        one = saved(tmp_path / "one", clusters.tolist(), names)
        two = saved(tmp_path / "two", moved.tolist(), names)
        text = page(compare([one, two]))
        assert "the 200 largest clusters" in " ".join(text.split())
        assert len(text) < 100_000


@pytest.fixture
def two(ebsc, tmp_path: Path) -> Path:
    """Finished runs in the folders ``one`` and ``two``."""
    flags = ("--backbone", "identity", "--epochs", "0", "--set", "refine.steps=5")
    assert ebsc("run", *flags, "--limit", "120", "--out", "one").code == 0
    assert ebsc("run", *flags, "--limit", "90", "--coefficients", "knn", "--out", "two").code == 0
    return tmp_path


class TestTheCommand:
    def test_compares_real_runs(self, ebsc, two: Path) -> None:
        done = ebsc("compare", "one", "two", "-o", "compare.html")
        assert (done.code, done.err) == (0, "")
        assert "data.limit" in done.out
        assert "knn" in done.out
        assert "seed" not in done.out
        assert "images are in matched clusters" in done.out
        found = json.loads(ebsc("compare", "one", "two", "--json").out)
        (pair,) = found["agreements"]
        assert pair["images"] == 90
        (table,) = found["contingencies"]
        assert np.sum(table["counts"]) == pair["images"]
        assert f"ARI {pair['ari']:.3f} on {pair['images']} images" in done.out
        assert 1000 < (two / "compare.html").stat().st_size < 60_000

    def test_bad_input_is_one_line(self, ebsc, two: Path) -> None:
        shutil.copytree(two / "one", two / "damaged")
        (two / "damaged/metrics.json").write_text('{"scores": 3}')
        shutil.copytree(two / "one", two / "old")
        (two / "old/manifest").unlink()
        shutil.copytree(two / "old", two / "shapeless")
        (two / "shapeless/metrics.json").write_text('{"scores": 3}')
        shutil.copytree(two / "old", two / "strange")
        (two / "strange/run.toml").write_text("data = 3")
        shutil.copytree(two / "old", two / "other")
        text = (two / "other/run.toml").read_text()
        (two / "other/run.toml").write_text(text.replace('"digits"', '"mnist"'))
        shutil.copytree(two / "other", two / "renamed")
        head, *lines = (two / "renamed/assignments.csv").read_text().splitlines()
        renamed = [head, *(f"row-{line}" for line in lines)]
        (two / "renamed/assignments.csv").write_text("\n".join(renamed) + "\n")
        first = [lines[0].split(",")[0], renamed[1].split(",")[0]]
        (two / "begun").mkdir()
        (two / "begun/unfinished.toml").touch()
        for arguments, said in (
            (("one",), "two runs or more"),
            (("one", "none"), "none does not exist"),
            (("one", "one/run.toml"), "is a file"),
            (("one", "."), "holds no finished run"),
            (("one", "begun"), "begun is unfinished; to go on: ebsc resume begun"),
            (("one", "damaged"), "damaged/metrics.json is not the file that was written"),
            (("one", "shapeless"), "shapeless/metrics.json is damaged ('images' is missing)"),
            (("one", "strange"), "strange/run.toml: 'data' is a section"),
            (("one", "other"), "one and other have no image in common (they are of different data"),
            (("one", "renamed"), f"(the first are called {first[0]!r} and {first[1]!r})"),
            (("one", "two", "-o", "nowhere/x.html"), "the folder of nowhere/x.html is not there"),
        ):
            done = ebsc("compare", *arguments)
            assert done.code == 2
            assert said in done.err
            assert done.err.count("\n") == 1


def test_images_of_one_name_are_matched_in_their_order_or_left_out(tmp_path: Path) -> None:
    here, there, unclear = match_images(["a", "b", "a", "c", "d", "c"], ["c", "a", "a", "b", "e"])
    assert (here.tolist(), there.tolist(), unclear) == ([0, 1, 2], [1, 3, 2], 2)
    one = saved(tmp_path / "one", [0, 1, 0, 1, 0, 1], list("aabbcd"))
    again = saved(tmp_path / "again", [1, 0, 1, 0, 0, 1], list("aabbcd"))
    fewer = saved(tmp_path / "fewer", [0, 1, 0, 1], list("abbc"))
    whole, part, _ = compare([one, again, fewer]).agreements
    assert (whole.images, whole.unclear) == (6, 0)
    assert (part.images, part.unclear) == (3, 2)
    assert "2 images of run 1 are not compared with run 3" in page(compare([one, again, fewer]))
    with pytest.raises(EbscError, match="more often than the other, so images cannot be matched"):
        compare([saved(tmp_path / "two", [0, 1], ["a", "a"]), saved(tmp_path / "alone", [0], ["a"])])

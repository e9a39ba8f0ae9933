"""Names of files, shares and annotations, on data small enough to do by hand."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from ebsc_core.curation.annotations import labeling_configuration, write_fiftyone, write_label_studio
from ebsc_core.curation.image_files import ImageFiles
from ebsc_core.curation.memberships import Memberships, memberships, sureness
from ebsc_core.curation.output import new_file, new_folder
from ebsc_core.runs.store.decisions import Merge, Name, Naming, apply
from ebsc_core.runs.store.saved import Assignments
from ebsc_core.utils.errors import DataError

# Rows 0 and 1 are cluster 0, row 2 is cluster 1, row 3 has none.
MATRIX = np.array([[0, 3, 1, 0], [3, 0, 0, 0], [1, 0, 0, 4], [0, 0, 4, 0]], float)
CLUSTERS = np.array([0, 0, 1, -1])


def run(*decisions, size: int | None = None) -> SimpleNamespace:
    found = Assignments([f"{i}.png" for i in range(4)], CLUSTERS, np.array([0.9, 0.8, 0.1, 0.0]), None, 4)
    return SimpleNamespace(
        path=Path("run"),
        assignments=found,
        curated=apply(CLUSTERS, decisions),
        affinity=sparse.csr_matrix(MATRIX),
        metrics={"dictionary_size": size},
        config=SimpleNamespace(seed=0),
    )


def test_shares_are_those_of_the_affinity() -> None:
    found = memberships(run())
    assert found.numbers == [0, 1]
    assert np.allclose(found.shares.toarray(), [[0.75, 0.25], [1, 0], [0.2, 0], [0, 1]])
    clusters, shares = found.ranked(CLUSTERS, 3)
    # The own cluster is the first one, whatever its share, and even if there is none.
    assert clusters.tolist() == [[0, 1, -1], [0, -1, -1], [1, 0, -1], [-1, 1, -1]]
    assert np.allclose(shares, [[0.75, 0.25, 0], [1, 0, 0], [0, 0.2, 0], [0, 1, 0]])


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 8), st.integers(0, 99))
def test_ranks_are_those_of_a_plain_sort(n: int, k: int, top: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dense = rng.random((n, k)) * (rng.random((n, k)) < 0.6)
    own = rng.integers(-1, k, n)
    clusters, shares = Memberships([*range(k)], sparse.csr_matrix(dense)).ranked(own, top)
    for row in range(n):
        others = sorted(set(np.flatnonzero(dense[row]).tolist()) - {own[row]}, key=lambda j: -dense[row, j])
        expected = [int(own[row]), *others]
        expected = (expected + [-1] * top)[:top]
        assert clusters[row].tolist() == expected
        assert np.allclose(shares[row], [dense[row, j] if j >= 0 else 0 for j in expected])


def test_in_a_merged_cluster_the_affinity_says_how_sure_it_is() -> None:
    assert sureness(run()).tolist() == [0.9, 0.8, 0.1, 0.0]
    merged = sureness(run(Merge(numbers=[0, 1])))
    assert np.allclose(merged, [1, 1, 0.2, 0.0])


@pytest.mark.parametrize(
    ("ids", "folder", "names"),
    [
        (["a/1.jpg", "b/2.jpg"], True, ["1.jpg", "2.jpg"]),
        (["a/1.jpg", "b/1.jpg"], True, ["a_1.jpg", "b_1.jpg"]),
        (["a/1.jpg", "b/1.JPG"], True, ["a_1.jpg", "b_1.JPG"]),
        (["a/b_1.jpg", "a_b/1.jpg", "c/1.jpg"], True, ["0-b_1.jpg", "1-1.jpg", "2-1.jpg"]),
        (["0", "1"], False, ["0.png", "1.png"]),
        (["a/1.jpg", "a/1.tif"], False, ["0-1.png", "1-1.png"]),
    ],
)
def test_no_two_files_have_one_name(ids, folder: bool, names) -> None:
    assert ImageFiles(None, Path("x") if folder else None, ids).names == names


@given(st.lists(st.text("/.aA_", min_size=1, max_size=6), min_size=1, max_size=5, unique=True), st.booleans())
def test_each_file_has_a_name_of_its_own_in_one_folder(paths: list[str], in_folder: bool) -> None:
    names = ImageFiles(None, Path("x") if in_folder else None, [f"{path}x.png" for path in paths]).names
    assert all(name not in ("", ".", "..") and "/" not in name for name in names)
    assert len({name.casefold() for name in names}) == len(paths)


def test_long_names_are_cut(tmp_path: Path) -> None:
    (name, _) = ImageFiles(None, Path("x"), ["é" * 300 + ".jpg", "2.jpg"]).names
    assert name.startswith("0-é")
    assert name.endswith("é.jpg")
    (tmp_path / f"001-{name}").touch()


def test_annotations_name_clusters_and_files(tmp_path: Path) -> None:
    named = run(Naming(names=[Name(number=0, name="a & b")]))
    files = ["a b/0.png", "1.png", "2.png", "3.png"]
    write_fiftyone(tmp_path / "labels.json", named, files)
    assert json.loads((tmp_path / "labels.json").read_text()) == {
        "classes": ["a & b", "1"],
        "labels": {
            "a b/0": {"label": 0, "confidence": 0.9},
            "1": {"label": 0, "confidence": 0.8},
            "2": {"label": 1, "confidence": 0.1},
            "3": None,
        },
    }
    write_label_studio(tmp_path / "tasks.json", named, files)
    first, *_, last = json.loads((tmp_path / "tasks.json").read_text())
    assert first["data"] == {"image": "/data/local-files/?d=a%20b/0.png"}
    (prediction,) = first["predictions"]
    assert prediction["score"] == 0.9
    assert prediction["result"][0]["value"] == {"choices": ["a & b"]}
    assert "predictions" not in last
    assert '<Choice value="a &amp; b"/><Choice value="1"/>' in labeling_configuration(named)
    with pytest.raises(DataError, match="but for the suffix"):
        write_fiftyone(tmp_path / "more.json", named, ["a.png", "a.jpg", "b.png", "c.png"])
    assert not (tmp_path / "more.json").exists()


def test_nothing_is_written_over_nor_left_half(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    with pytest.raises(DataError, match="there already"), new_folder(there) as folder:
        (folder / "x").touch()
    with pytest.raises(DataError, match="there already"), new_file(there) as file:
        file.touch()
    with pytest.raises(DataError, match="No space left"), new_folder(tmp_path / "new"):
        raise OSError(28, "No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert list(there.iterdir()) == []

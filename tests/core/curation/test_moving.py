"""Single images that a person moves: where they are then, how sure, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebsc_core.curation.decide import merge_clusters, move_images, name_clusters, split_cluster, undo
from ebsc_core.curation.lookup import positions_of, read_images
from ebsc_core.curation.memberships import sureness
from ebsc_core.curation.outliers import find_outliers
from ebsc_core.plugins.registry import Registry
from ebsc_core.runs.store.decisions import Merge, Move, apply
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.errors import ConfigError, DataError

IDS = ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/3.jpg", "3", "twice", "twice"]


@pytest.fixture
def run(ebsc, tmp_path: Path) -> SavedRun:
    """A run on three separate groups of 20 rows, with names."""
    rng = np.random.default_rng(0)
    rows = np.repeat(np.eye(3, 6), 20, 0) + 0.1 * rng.standard_normal((60, 6))
    names = np.array([f"group{i // 20}/{i}.jpg" for i in range(60)])
    np.savez(tmp_path / "rows.npz", features=rows.astype(np.float32), ids=names)
    flags = ("--coefficients", "knn", "--n-clusters", "3", "--quiet", "--no-report")
    assert ebsc("cluster", "rows.npz", *flags, "--out", "run").code == 0
    return SavedRun(tmp_path / "run")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a/1.jpg", "b/3.jpg"], [0, 3]),
        (["photos/b/1.jpg", "2.jpg"], [1, 2]),
        (["3"], [4]),
        (["0", "4"], [0, 4]),
        ([3, np.int64(1), "a/2.jpg"], [1, 3]),
        ([5, 6], [5, 6]),
    ],
)
def test_images_are_found_by_name_the_end_of_a_path_or_position(given: Any, expected: list[int]) -> None:
    assert positions_of(IDS, given) == expected


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["1.jpg"], "no image 1.jpg, or several"),
        (["c/9.jpg", "d", "e", "f"], "no image c/9.jpg, d, e, …"),
        (["twice"], "several images are called twice"),
        ([7], "no image at position 7; it has 7"),
        (["7"], "no image at position 7; it has 7"),
        ([-1], "no image at position -1"),
        ([1.5], "by names or positions, not by 1.5"),
    ],
)
def test_an_image_that_is_not_there_is_one_line(given: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        positions_of(IDS, given)


def test_moved_images_are_where_a_person_has_put_them(run: SavedRun) -> None:
    before, sure = run.curated.clusters, sureness(run)
    other = int((before[0] + 1) % 3)
    run = name_clusters(run, {other: "herbs"})
    moved = move_images(run, ["0.jpg", 1], "herbs")
    assert moved.curated.clusters[:2].tolist() == [other, other]
    assert (moved.curated.clusters[2:] == before[2:]).all()
    assert sureness(moved)[:2].tolist() == [1, 1]
    assert np.allclose(sureness(moved)[2:], sure[2:])
    assert move_images(moved, [0, 1], other).decisions == moved.decisions  # nothing to do
    back, last = undo(moved)
    assert str(last) == f"move 2 images to {other}"
    assert (back.curated.clusters == before).all()


def test_images_in_no_cluster_are_neither_outliers_nor_sure(run: SavedRun) -> None:
    strongest = find_outliers(run, 3)
    moved = move_images(run, [strongest[0].image, strongest[2].position], "None")
    assert [one.image for one in find_outliers(moved, 1)] == [strongest[1].image]
    at = [strongest[0].position, strongest[2].position]
    assert moved.curated.clusters[at].tolist() == [-1, -1]
    assert sureness(moved)[at].tolist() == [0, 0]
    assert str(moved.decisions[-1]) == "move 2 images to none"


def test_a_cluster_that_is_left_empty_is_gone(run: SavedRun) -> None:
    first = int(run.curated.clusters[0])
    run = name_clusters(run, {first: "herbs"})
    moved = move_images(run, range(20), None)
    assert first not in moved.curated.numbers
    assert moved.curated.names == {}
    with pytest.raises(ConfigError, match="no cluster called 'herbs'"):
        move_images(moved, [0], "herbs")
    with pytest.raises(ConfigError, match="no image would be left in any cluster"):
        move_images(moved, range(60), None)


def test_what_a_split_has_put_somewhere_is_not_by_hand(run: SavedRun) -> None:
    other = int((run.curated.clusters[0] + 1) % 3)
    moved = move_images(run, range(8), other)
    assert moved.curated.by_hand.sum() == 8
    merged = merge_clusters(moved, [0, 1, 2])
    assert merged.curated.by_hand.sum() == 8
    assert not split_cluster(merged, int(merged.curated.numbers[0]), 2, Registry()).curated.by_hand.any()


@given(st.data())
def test_a_move_changes_its_rows_alone(data: st.DataObject) -> None:
    clusters = np.array(data.draw(st.lists(st.integers(-1, 3), min_size=3, max_size=20)))
    there = apply(clusters, []).numbers
    number = data.draw(st.sampled_from([*there, None])) if there else None
    rows = data.draw(st.lists(st.integers(0, len(clusters) - 1), min_size=1, max_size=5))
    move = Move(number=number, rows=rows)
    expected = clusters.copy()
    expected[rows] = -1 if number is None else number
    if (expected < 0).all():
        with pytest.raises(ValueError, match="leaves no image"):
            apply(clusters, [move])
        return
    after = apply(clusters, [move])
    assert (after.clusters == expected).all()
    assert after.changed == set(there) - set(after.numbers)
    assert after.highest == clusters.max()
    assert after.sure(np.full(len(clusters), 0.5))[~after.by_hand].tolist() == [0.5] * (~after.by_hand).sum()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Move(number=7, rows=[0]), "no cluster 7"),
        (Move(number=0, rows=[4]), "rows that are not there"),
        (Move(number=None, rows=[0, 1, 2, 3]), "leaves no image"),
    ],
)
def test_a_move_that_does_not_fit_is_refused(wrong: Move, said: str) -> None:
    clusters = np.array([0, 0, 1, -1])
    with pytest.raises(ValueError, match=said):
        apply(clusters, [Merge(numbers=[0, 1]), wrong])


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_names_are_read_from_the_column_of_a_table(tmp_path: Path, delimiter: str) -> None:
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=delimiter).writerows([["score", "image"], [1, "a, b.jpg"], [2, "c.jpg"]])
    assert read_images(tmp_path / "t.csv") == ["a, b.jpg", "c.jpg"]


def test_a_table_of_a_spreadsheet_may_be_in_utf_16(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image\tscore\na.jpg\t1\n", encoding="utf-16")
    assert read_images(tmp_path / "t.csv") == ["a.jpg"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("image\n".encode("utf-16") + b"x", "cannot be read"),
        (b"", "no column 'image'"),
        (b"name\nx\n", "no column 'image'"),
        (b"image\n\n", "names no images"),
        (b"image\n" + b"x" * 200_000, "cannot be read: field larger"),
    ],
)
def test_a_table_without_names_is_one_line(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_images(tmp_path / "t.csv")

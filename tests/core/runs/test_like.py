"""Clusters that keep their numbers: matched by the images of two runs."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from ebsc_core.report.advice import advice_from_figures
from ebsc_core.runs.like import match_numbers
from ebsc_core.runs.store.saved import SavedRun

QUICK = ("--coefficients", "knn", "--set", "top_k=6")


def test_what_became_of_each_cluster_is_said() -> None:
    earlier = np.array([0, 0, 0, 0, 2, 2, 2, 5, 5, 7, -1, -1, -1])
    labels = np.array([3, 3, 3, 1, 0, 0, 0, 0, 0, -1, 2, 2, 0])
    found = match_numbers(earlier, labels, 9)
    assert found.numbers == {3: 0, 0: 2, 1: 9, 2: 10}
    assert found.lines() == [
        "clusters kept: 0, 2",
        "clusters split: 9 from 0",
        "clusters new: 10",
        "clusters gone: 5 (now in 2), 7",
    ]
    assert found.staying == 6 / 9


@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3)), min_size=1, max_size=30))
def test_as_many_images_as_possible_keep_their_number(pairs) -> None:
    earlier, labels = np.array(pairs).T
    found = match_numbers(earlier, labels, 4)
    assert len(set(found.numbers.values())) == len(found.numbers)
    assert set(found.numbers) == set(labels[labels >= 0].tolist())
    old, now = set(earlier[earlier >= 0].tolist()), set(found.numbers.values())
    assert now & set(range(4)) == set(found.kept) <= old
    assert now - set(found.kept) == {*found.split, *found.new}
    assert old - set(found.kept) == set(found.gone)
    shared = (earlier >= 0) & (labels >= 0)
    best = max(
        int(np.sum(np.array(order)[labels[shared]] == earlier[shared])) for order in permutations(range(4))
    )
    kept = int(np.sum(np.array([found.numbers.get(int(k), -1) for k in labels])[shared] == earlier[shared]))
    assert kept == best
    assert found.staying == best / max(shared.sum(), 1)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Rows with names: 400 of them, and all of 700 in another order."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(700)
    for name, rows in (("few", np.arange(400)), ("more", order)):
        ids = np.array([f"digit-{row}.png" for row in rows])
        np.savez(tmp_path / f"{name}.npz", features=X[rows].astype(np.float32), labels=y[rows], ids=ids)
    return tmp_path


def test_a_run_with_more_data_keeps_numbers_and_names(ebsc, files: Path) -> None:
    assert ebsc("cluster", "few.npz", *QUICK, "-q", "--out", "one").code == 0
    for number in range(10):
        assert ebsc("name", "one", number, f"the {number}").code == 0
    assert ebsc("cluster", "more.npz", *QUICK, "-q", "--out", "plain").code == 0
    done = ebsc("cluster", "more.npz", *QUICK, "--like", "one", "--out", "two")
    assert done.code == 0, done.err
    assert "400 images are also in one" in done.out
    assert "clusters kept: 0, 1, 2" in done.out
    one, two, plain = (SavedRun(files / name) for name in ("one", "two", "plain"))
    before = dict(zip(one.assignments.ids, one.assignments.clusters, strict=True))
    shared = [
        (before[i], k)
        for i, k in zip(two.assignments.ids, two.assignments.clusters, strict=True)
        if i in before
    ]
    share = np.mean([a == b for a, b in shared])
    assert share > 0.8
    assert two.metrics["like"]["staying"] == pytest.approx(share, abs=1e-3)
    assert two.curated.names == {k: f"the {k}" for k in two.metrics["like"]["kept"]}
    # Nothing else has changed.
    same = set(zip(two.assignments.clusters.tolist(), plain.assignments.clusters.tolist(), strict=True))
    assert len(same) == 10
    assert two.metrics["scores"] == pytest.approx(plain.metrics["scores"], abs=1e-12)
    assert ebsc("doctor", "two").code == 0
    assert ebsc("report", "two").code == 0
    # New images join by these numbers, too.
    assert ebsc("predict", "two", "few.npz", "-o", "new.csv").code == 0
    assert (files / "new.csv").read_text().splitlines()[0] == "image,cluster,confidence,name,label"


def test_decisions_count_and_numbers_of_merged_clusters_do_not_return(ebsc, files: Path) -> None:
    assert ebsc("cluster", "few.npz", *QUICK, "-q", "--out", "one").code == 0
    assert ebsc("merge", "one", "3", "9").code == 0
    assert ebsc("cluster", "more.npz", *QUICK, "-q", "--like", "one", "--out", "two").code == 0
    two = SavedRun(files / "two")
    numbers = set(two.assignments.clusters.tolist())
    assert 9 not in numbers
    assert 10 in numbers
    assert len(two.metrics["label_free"]["cluster_sizes"]) == 10
    assert min(two.metrics["label_free"]["cluster_sizes"]) > 0
    assert "empty" not in " ".join(item.said for item in advice_from_figures(two))
    assert two.metrics["like"]["next"] == 11
    assert ebsc("report", "two").code == 0
    # A cluster that is gone does not give its number away, either.
    assert ebsc("merge", "two", "0", "10").code == 0
    assert ebsc("split", "two", "0").code == 0
    assert SavedRun(files / "two").curated.highest == 11


def test_runs_without_common_images_are_refused_before_anything_is_done(ebsc, files: Path) -> None:
    assert ebsc("cluster", "few.npz", *QUICK, "-q", "--out", "one").code == 0
    np.savez(files / "other.npz", features=np.eye(20, 64, dtype=np.float32), ids=[f"x{i}" for i in range(20)])
    for data, like in (("other.npz", "one"), ("more.npz", "nowhere")):
        done = ebsc("cluster", data, *QUICK, "--n-clusters", "3", "--like", like, "--out", "two")
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        assert not (files / "two").exists()


def test_names_that_are_positions_are_said(ebsc, files: Path) -> None:
    flags = ("--n-clusters", "4", "-q")
    np.save(files / "a.npy", load_digits().data[:100])
    np.save(files / "b.npy", load_digits().data[:150])
    assert ebsc("cluster", "a.npy", *QUICK, *flags, "--out", "one").code == 0
    done = ebsc("cluster", "b.npy", *QUICK, *flags, "--like", "one", "--out", "two")
    assert done.code == 0
    assert "matched with those of one by position" in done.err


def test_rows_that_share_a_name_keep_their_clusters(ebsc, files: Path) -> None:
    X = np.load(files / "few.npz")["features"][:200]
    for name, rows in (("patches", X), ("fewer", X[1:])):
        photos = np.array([f"photo-{row // 2}.png" for row in range(200)])[200 - len(rows) :]
        np.savez(files / f"{name}.npz", features=rows, ids=photos)
    assert ebsc("cluster", "patches.npz", "--n-clusters", "5", *QUICK, "-q", "--out", "one").code == 0
    done = ebsc("cluster", "patches.npz", "--n-clusters", "5", *QUICK, "--like", "one", "--out", "two")
    assert "200 images are also in one; 100.0% of them keep their cluster" in done.out
    done = ebsc("cluster", "fewer.npz", "--n-clusters", "5", *QUICK, "--like", "one", "--out", "three")
    assert "198 images are also in one" in done.out
    assert "1 images are not matched with those of one, which has their names more or less often" in done.err

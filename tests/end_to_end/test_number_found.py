"""Clusterers that find the number of clusters themselves: no command asks them for one."""

from __future__ import annotations

import json
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits, make_blobs
from sklearn.metrics import adjusted_rand_score

from ebsc_core import EBSC, EnergySubspaceClustering

GROUPS = 12
UP_TO_A_DISTANCE = ("--clusterer", "AgglomerativeClustering", "--set", "clusterer.distance_threshold=2.0")
NO_GROUPS = ("--clusterer", "DBSCAN", "--set", "clusterer.eps=0.01")
ONE_GROUP = ("--clusterer", "DBSCAN", "--set", "clusterer.eps=3.0")


def groups() -> tuple[np.ndarray, np.ndarray]:
    rows, truth = make_blobs(600, n_features=16, centers=GROUPS, cluster_std=0.6, random_state=0)
    return rows.astype(np.float32), truth


@pytest.fixture
def rows(tmp_path: Path) -> np.ndarray:
    """``rows.npy``, which tells no number of classes, and its groups."""
    found, truth = groups()
    np.save(tmp_path / "rows.npy", found)
    return truth


def clusters(path: Path) -> list[int]:
    lines = (path / "assignments.csv").read_text().splitlines()
    column = lines[0].split(",").index("cluster")
    return [int(line.split(",")[column]) for line in lines[1:]]


@pytest.mark.parametrize(
    "clusterer", [("--clusterer", "HDBSCAN"), UP_TO_A_DISTANCE], ids=lambda words: words[1]
)
def test_a_run_needs_no_number_and_searches_for_none(ebsc, tmp_path: Path, rows, clusterer) -> None:
    done = ebsc("cluster", "rows.npy", *clusterer, "--out", "run")
    assert done.code == 0, done.err
    assert f"{clusterer[1]}, which finds the number itself" in done.out
    assert f"{clusterer[1]} found {GROUPS} clusters" in done.out
    assert "no effect" not in done.out
    assert done.err == ""
    assert adjusted_rand_score(rows, clusters(tmp_path / "run")) == 1
    figures = json.loads((tmp_path / "run/metrics.json").read_text())
    assert figures["n_clusters"] is None
    assert "number of clusters" not in figures["seconds"]
    assert len(figures["label_free"]["cluster_sizes"]) == GROUPS
    assert "n_clusters" not in tomllib.loads((tmp_path / "run/run.toml").read_text())


@pytest.mark.parametrize("number", ["5", "auto"])
def test_a_number_has_no_effect_and_this_is_said(ebsc, tmp_path: Path, rows, number: str) -> None:
    done = ebsc("cluster", "rows.npy", "--clusterer", "HDBSCAN", "--n-clusters", number, "--out", "run")
    assert done.code == 0, done.err
    assert "no effect     --n-clusters: HDBSCAN finds the number of clusters itself" in done.out
    assert done.err == ""
    again = ebsc("cluster", "rows.npy", "--config", "run/run.toml", "--out", "again")
    assert again.code == 0, again.err
    assert "no effect" not in again.out
    assert clusters(tmp_path / "run") == clusters(tmp_path / "again")


def test_what_follows_a_run_knows_the_number(ebsc, tmp_path: Path, rows) -> None:
    assert ebsc("cluster", "rows.npy", "--clusterer", "HDBSCAN", "--out", "run").code == 0
    listed = json.loads(ebsc("runs", ".", "--json").out)
    assert [run["clusters"] for run in listed] == [GROUPS]
    done = ebsc("predict", "run", "rows.npy", "-o", "new.csv")
    assert done.code == 0, done.err
    joined = [int(line.split(",")[1]) for line in (tmp_path / "new.csv").read_text().splitlines()[1:]]
    assert adjusted_rand_score(clusters(tmp_path / "run"), joined) == 1
    for words in (("merge", "run", "0", "1"), ("split", "run", "2"), ("tree", "run"), ("report", "run")):
        done = ebsc(*words)
        assert done.code == 0, done.err
    done = ebsc("cluster", "rows.npy", "--clusterer", "HDBSCAN", "--like", "run", "--out", "later")
    assert done.code == 0, done.err
    assert ebsc("compare", "run", "later").code == 0


@pytest.mark.parametrize(("words", "found"), [(NO_GROUPS, "no cluster"), (ONE_GROUP, "one cluster")])
def test_fewer_than_two_clusters_are_a_result_with_a_warning(ebsc, tmp_path: Path, words, found: str) -> None:
    rows = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    done = ebsc("cluster", "rows.npy", *words, "--out", "run")
    assert done.code == 0, done.err
    assert f"DBSCAN found {found}; its options decide how many it finds" in done.err
    for command in (("report", "run"), ("predict", "run", "rows.npy", "-o", "new.csv"), ("runs", ".")):
        assert ebsc(*command).code == 0


def test_a_sample_may_have_the_number_found(ebsc, tmp_path: Path, rows) -> None:
    done = ebsc("cluster", "rows.npy", "--clusterer", "HDBSCAN", "--dictionary-size", "400", "--out", "run")
    assert done.code == 0, done.err
    assert adjusted_rand_score(rows, clusters(tmp_path / "run")) > 0.95


def test_training_that_looks_at_neighbors_needs_no_number(ebsc, tmp_path: Path) -> None:
    np.savez(tmp_path / "digits.npz", images=(load_digits().images[:120] / 16).astype(np.float32))
    words = ("--data", "digits.npz", "--backbone", "resnet10t", "--epochs", "2", "--clusterer", "HDBSCAN")
    done = ebsc("run", *words, "--set", "joint.form=neighbors", "--no-report", "--out", "run")
    assert done.code == 0, done.err
    assert "HDBSCAN found" in done.out + done.err


def test_the_estimators_take_the_number_found() -> None:
    found, truth = groups()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = EnergySubspaceClustering(clusterer="HDBSCAN", random_state=0).fit(found)
    assert model.n_clusters_ == GROUPS
    assert adjusted_rand_score(truth, model.labels_) == 1
    assert adjusted_rand_score(model.predict(found), model.labels_) == 1

    digits = load_digits()
    settings = {"clusterer.distance_threshold": 2.0}
    images = EBSC(
        backbone="identity",
        epochs=0,
        clusterer="AgglomerativeClustering",
        settings=settings,
        random_state=0,
    ).fit((digits.images[:200] / 16).astype(np.float32))
    assert images.n_clusters_ == len(np.unique(images.labels_)) > 1

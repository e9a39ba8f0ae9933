"""UMAP, then k-means: what it finds, that its seed decides it, few and equal rows, and a run with it."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score

from ebsc_core.clustering.spectral.kmeans import kmeans
from ebsc_core.plugins.interfaces import Clusterer
from ebsc_core.plugins.registry import Kind, Registry
from ebsc_core.plugins.selection import check_options
from ebsc_core.testing import clusterer_checks
from ebsc_core.utils.errors import ConfigError

installed = pytest.mark.skipif(find_spec("umap") is None, reason="umap-learn is not installed")

test_umap = installed(clusterer_checks("umap"))


def build(k: int, seed: int = 0, **options: Any) -> Clusterer:
    part = Registry().find(Kind.CLUSTERER, "umap")
    return part.factory(check_options(part, options, "clusterer"), k, seed)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """300 rows of pixels and their classes."""
    pixels, classes = load_digits(return_X_y=True)
    return unit(pixels[:300]), classes[:300]


@installed
def test_digits_are_found_far_better_than_by_k_means_on_pixels() -> None:
    rows, classes = digits()
    found = adjusted_rand_score(classes, build(10).fit_predict(rows))
    assert found > adjusted_rand_score(classes, kmeans(rows, 10, 10, 0)) + 0.1


@installed
def test_the_seed_decides_the_labels() -> None:
    rows = unit(np.random.default_rng(0).normal(size=(200, 10)))
    first = build(5, seed=3).fit_predict(rows)
    assert (first == build(5, seed=3).fit_predict(rows)).all()
    assert (first != build(5, seed=4).fit_predict(rows)).any()


@installed
def test_torch_computes_with_as_many_threads_as_before() -> None:
    before = torch.get_num_threads()
    build(2).fit_predict(unit(np.random.default_rng(0).normal(size=(50, 5))))
    assert torch.get_num_threads() == before


@installed
@settings(max_examples=40)
@given(n=st.integers(2, 30), n_components=st.integers(1, 12), seed=st.integers(0, 1000))
def test_few_rows_get_labels_and_no_warning(n: int, n_components: int, seed: int) -> None:
    rows = unit(np.random.default_rng(seed).normal(size=(n, 5)))
    clusterer = build(2, seed, n_components=n_components)
    assert set(clusterer.fit_predict(rows)) == {0, 1}
    assert clusterer.warnings_ == []


@installed
@pytest.mark.parametrize("copies", [1, 60])
def test_copies_of_a_row_are_in_one_cluster(copies: int) -> None:
    """There are more copies than neighbours."""
    distinct = unit(np.random.default_rng(0).normal(size=(20, 5)))
    labels = build(4).fit_predict(np.repeat(distinct, copies, axis=0)).reshape(20, copies)
    assert (labels == labels[:, :1]).all()
    assert len(np.unique(labels)) == 4


@installed
def test_opposite_rows_get_labels() -> None:
    """UMAP by default drops the edges of the largest distance, and a row without edges has no place."""
    rows = unit(np.array([[1.0, 0, 0], [-1, 0, 0], [-1, 0.1, 0], [-1, 0, 0.1]]))
    assert set(build(2).fit_predict(rows)) == {0, 1}


@installed
def test_a_warning_of_umap_is_one_sentence_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    import scipy.sparse.linalg

    def fail(*arguments: Any, **settings: Any) -> None:
        raise scipy.sparse.linalg.ArpackError(-1)

    monkeypatch.setattr("scipy.sparse.linalg.eigsh", fail)
    clusterer = build(3)
    assert len(clusterer.fit_predict(digits()[0])) == 300
    (warning,) = clusterer.warnings_
    assert "initialisation failed" in warning
    assert "\n" not in warning


@pytest.mark.parametrize("option", ["n_neighbors", "n_components", "min_dist", "n_init"])
def test_an_impossible_value_is_named(option: str) -> None:
    with pytest.raises(ConfigError, match=rf"clusterer\.{option}"):
        build(3, **{option: -1})


def test_without_umap_learn_the_command_to_install_it_is_named(
    ebsc: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "rows.npy", digits()[0])
    monkeypatch.setitem(sys.modules, "umap", None)
    done = ebsc("cluster", "rows.npy", "--n-clusters", "10", "--clusterer", "umap", "--out", "run")
    assert done.code == 2
    (line,) = (line for line in done.err.splitlines() if "umap" in line)
    assert "umap-learn" in line
    assert "pip install 'ebsc[umap]'" in line
    assert "Traceback" not in done.err
    assert not (tmp_path / "run").exists()


@installed
def test_later_rows_join_the_clusters_by_their_coefficients(ebsc: Callable[..., Any], tmp_path: Path) -> None:
    rows, classes = digits()
    np.save(tmp_path / "rows.npy", rows[:250])
    np.save(tmp_path / "later.npy", rows[250:])
    chosen = ("--clusterer", "umap", "--coefficients", "knn")
    assert ebsc("cluster", "rows.npy", "--n-clusters", "10", *chosen, "--out", "run").code == 0
    assert ebsc("predict", "run", "later.npy", "-o", "out.csv").code == 0
    with (tmp_path / "out.csv").open() as file:
        clusters = [int(row["cluster"]) for row in csv.DictReader(file)]
    assert adjusted_rand_score(classes[250:], clusters) > 0.6

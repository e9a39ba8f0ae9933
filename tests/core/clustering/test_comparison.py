"""Clusters beside simpler ones of the same rows, judged by the nearest neighbours."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.datasets import load_digits

from ebsc_core import EnergySubspaceClustering
from ebsc_core.clustering.comparison import Rival, RivalComparison, compare_with_rivals, neighbors_kept
from ebsc_core.clustering.spectral.kmeans import kmeans
from ebsc_core.data.features.whitening import Whitening


def unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def views(rows: np.ndarray) -> list[np.ndarray]:
    plain = torch.from_numpy(rows)
    return [rows, Whitening(plain)(plain).numpy()]


@given(
    labels=st.lists(st.integers(0, 3), min_size=4, max_size=20),
    seed=st.integers(0, 1000),
)
def test_kept_is_the_assortativity_of_the_graph(labels: list[int], seed: int) -> None:
    n, clusters = len(labels), np.array(labels)
    dense = np.random.default_rng(seed).integers(0, 2, (n, n)) * (1 - np.eye(n))
    dense[0, 1] = 1
    mixing = np.zeros((4, 4))
    for i in range(n):
        for j in range(n):
            mixing[clusters[i], clusters[j]] += dense[i, j] + dense[j, i]
    mixing /= mixing.sum()
    chance = (mixing.sum(axis=0) * mixing.sum(axis=1)).sum()
    expected = (np.trace(mixing) - chance) / (1 - chance) if chance < 1 - 1e-9 else 0
    assert neighbors_kept(sparse.csr_matrix(dense), clusters) == pytest.approx(expected, abs=1e-9)


def test_separate_groups_keep_all_and_one_cluster_keeps_nothing() -> None:
    rows = unit(np.repeat(np.eye(3), 20, 0) + 0.01 * np.random.default_rng(0).normal(size=(60, 3)))
    truth = np.repeat(np.arange(3), 20)
    found = compare_with_rivals(
        [rows], truth, {"one": np.zeros(60, int), "shuffled": np.arange(60) % 3, "same": truth}
    )
    one, shuffled, same = found.rivals
    assert found.neighbors_kept == same.neighbors_kept == same.agreement == 1
    assert one.neighbors_kept == 0
    assert shuffled.neighbors_kept < 0.1
    assert found.better is None
    assert found.record()["rivals"]["same"] == {"agreement": 1, "neighbors_kept": 1}


def test_the_best_of_the_better_ones_is_named() -> None:
    some, most = Rival("some", 0.5, 0.7), Rival("most", 0.4, 0.9)
    assert RivalComparison(1000, 0.6, (some, most)).better is most
    assert RivalComparison(1000, 0.68, (some,)).better is None
    assert RivalComparison(1000, 0.68, ()).better is None


def cone(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return rows like those of CLIP: a large direction that all share, small offsets of groups, noise."""
    rng = np.random.default_rng(seed)
    groups = np.arange(600) % 12
    shared, offsets = unit(rng.normal(size=(1, 512))), unit(rng.normal(size=(12, 512)))
    return unit(shared + 0.3 * offsets[groups] + 0.5 * rng.normal(size=(600, 512)) / 512**0.5), groups


def test_on_a_cone_clusters_of_which_a_third_is_wrong_are_seen() -> None:
    rows, groups = cone()
    wrong = np.random.default_rng(1).permutation(600)[:200]
    found = groups.copy()
    found[wrong] = (found[wrong] + 1 + np.arange(200) % 11) % 12
    better = compare_with_rivals(views(rows), found, {"k-means": kmeans(rows, 12, 4, 0)}).better
    assert better is not None
    assert better.agreement < 0.7
    assert compare_with_rivals(views(rows), groups, {"k-means": kmeans(rows, 12, 4, 0)}).better is None


@pytest.mark.parametrize("seed", [0, 1])
def test_k_means_is_not_better_on_digits_where_it_only_has_the_better_silhouette(seed: int) -> None:
    X, classes = load_digits(return_X_y=True)
    rows = unit(X)
    compared = compare_with_rivals(views(rows), classes, {"k-means": kmeans(rows, 10, 4, seed)})
    assert compared.better is None
    assert compared.rivals[0].neighbors_kept < compared.neighbors_kept


def warned(rows: np.ndarray, **settings: Any) -> tuple[list[str], dict[str, Any]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = EnergySubspaceClustering(4, random_state=0, **settings).fit(rows)
    return [str(w.message) for w in caught if "nearest neighbours" in str(w.message)], model.metrics_


def blobs() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.repeat(np.eye(4, 8), 75, 0) + 0.25 * rng.normal(size=(300, 8))


def test_a_fit_says_when_k_means_is_better() -> None:
    chained = {"clusterer": "AgglomerativeClustering", "settings": {"clusterer.linkage": "single"}}
    (said,), figures = warned(blobs(), coefficients="knn", **chained)
    assert said.startswith("k-means keeps ")
    assert "these clusters 0%" in said
    assert said.endswith("try another clusterer")  # it works on the rows, so no other setting matters
    assert figures["comparison"]["rivals"]["k-means"]["agreement"] < 0.2
    assert figures["comparison"]["rows"] == 300


def test_what_to_try_is_what_the_run_does_otherwise() -> None:
    # With one coefficient a row, the graph is in many more pieces than clusters.
    (said,), _ = warned(blobs(), coefficients="knn", top_k=1, whiten=True)
    assert said.endswith("try another coefficients or another whiten")


def test_a_fit_as_good_as_k_means_says_nothing() -> None:
    said, figures = warned(blobs(), settings={"refine.steps": 2})
    assert not said
    assert set(figures["comparison"]["rivals"]) == {
        "k-means",
        "the untrained energy on whitened rows",
        "the untrained energy on plain rows",
        "the untrained energy on neighbour-whitened rows",
    }


def test_small_clusters_that_are_right_are_not_held_against_a_run() -> None:
    rng = np.random.default_rng(0)
    rows = np.repeat(np.eye(4, 16), [600, 2, 2, 2], 0) + 0.08 * rng.normal(size=(606, 16))
    linkage = {"clusterer.linkage": "average", "clusterer.metric": "cosine"}
    said, figures = warned(rows, coefficients="knn", clusterer="AgglomerativeClustering", settings=linkage)
    assert sorted(figures["label_free"]["cluster_sizes"]) == [2, 2, 2, 600]
    assert not said


@pytest.mark.parametrize("n", [4, 5, 7])
def test_of_very_few_rows_nothing_is_compared(n: int) -> None:
    said, figures = warned(np.eye(n), coefficients="knn")
    assert not said
    assert figures["comparison"] is None

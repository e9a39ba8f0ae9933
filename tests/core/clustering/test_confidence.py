"""Confidence orders rows by how often their cluster is right, which is measured on labelled data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import load_digits
from sklearn.metrics import silhouette_samples
from sklearn.metrics.cluster import contingency_matrix

from ebsc_core import EnergySubspaceClustering
from ebsc_core.clustering import confidence as module
from ebsc_core.clustering.confidence import clearness, confidence


@given(
    labels=st.lists(st.integers(-1, 14), min_size=1, max_size=40),
    seed=st.integers(0, 1000),
    held=st.sampled_from([1, 20, 1 << 22]),
)
def test_clearness_is_the_softmax_over_the_nearest_centers(labels: list[int], seed: int, held: int) -> None:
    clusters = np.array(labels)
    rows = np.random.default_rng(seed).normal(size=(len(clusters), 4)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = sorted(set(labels) - {-1})
    centers = {name: rows[clusters == name].sum(axis=0) for name in names}
    before, module.HELD_COSINES = module.HELD_COSINES, held
    try:
        found = clearness(rows, clusters)
    finally:
        module.HELD_COSINES = before
    for row, cluster, value in zip(rows, labels, found, strict=True):
        if cluster < 0:
            assert value == 0
            continue
        cosines = {name: float(row @ c / np.linalg.norm(c)) for name, c in centers.items()}
        others = sorted((cosines[name] for name in names if name != cluster), reverse=True)[:9]
        weights = np.exp(np.array([cosines[cluster], *others]) / 0.1)
        assert value == pytest.approx(weights[0] / weights.sum(), abs=1e-4)


def test_clear_rows_of_the_own_cluster_count() -> None:
    graph = sparse.csr_matrix(
        np.array([[0, 3, 1, 0, 0], [3, 0, 0, 0, 0], [1, 0, 0, 1, 0], [0, 0, 1, 0, 0], [0] * 5], np.float32)
    )
    embedding = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [1, 0]], np.float32)
    clear = 1 / (1 + np.exp(-10))
    assert clearness(embedding, np.array([0, 0, 1, 1, 0])) == pytest.approx(clear)
    found = confidence(graph, embedding, np.array([0, 0, 1, 1, 0]))
    assert found == pytest.approx([0.75 * clear, clear, 0.5 * clear, clear, 0], abs=1e-4)
    assert confidence(graph, embedding, np.full(5, -1)).tolist() == [0] * 5


def test_one_cluster_is_clear() -> None:
    assert clearness(np.eye(3, dtype=np.float32), np.array([0, 0, -1])).tolist() == [1, 1, 0]


def right(classes: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Which rows lie in the cluster that is matched to their class."""
    counts = contingency_matrix(classes, clusters)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    matched = dict(zip(np.unique(clusters)[columns], np.unique(classes)[rows], strict=True))
    return np.array([matched.get(cluster) for cluster in clusters]) == classes


def area(scores: np.ndarray, is_right: np.ndarray) -> float:
    """The area under the risk-coverage curve: the mean error of the surest n rows, over all n."""
    wrong = ~is_right[np.argsort(-scores, kind="stable")]
    return float((np.cumsum(wrong) / np.arange(1, len(wrong) + 1)).mean())


def digits() -> tuple[np.ndarray, np.ndarray]:
    return load_digits(return_X_y=True)


def coil20() -> tuple[np.ndarray, np.ndarray]:
    file = Path(os.environ.get("EBSC_DATA_DIR", "")) / "coil20.npz"
    if "EBSC_DATA_DIR" not in os.environ or not file.exists():
        pytest.skip("COIL-20 is not in EBSC_DATA_DIR")
    with np.load(file) as data:
        return data["images"].reshape(1440, -1).astype(np.float32), data["labels"]


MODELS = {
    "knn": {"coefficients": "knn"},
    "whitened knn": {"coefficients": "knn", "whiten": True},
    "energy": {"settings": {"refine.steps": 0}},
    "k-means": {"coefficients": "knn", "clusterer": "KMeans"},
}


@pytest.mark.parametrize("data", [digits, coil20])
@pytest.mark.parametrize("model", MODELS)
def test_confidence_orders_rows_by_accuracy(data: Any, model: str) -> None:
    X, classes = data()
    k = len(np.unique(classes))
    fitted = EnergySubspaceClustering(k, random_state=0, **MODELS[model]).fit(X)
    is_right = right(classes, fitted.labels_)
    order = np.argsort(fitted.confidence_, kind="stable")
    doubtful, sure = np.array_split(is_right[order], 2)
    assert sure.mean() > doubtful.mean()
    silhouettes = silhouette_samples(X, fitted.labels_, metric="cosine")
    assert area(fitted.confidence_, is_right) <= area(silhouettes, is_right)


@pytest.mark.parametrize("model", ["knn", "energy"])
def test_confidence_of_later_rows_orders_them_by_accuracy(model: str) -> None:
    X, classes = digits()
    fitted = EnergySubspaceClustering(10, random_state=0, **MODELS[model]).fit(X[:1200])
    found, sure = fitted.predict(X[1200:], return_confidence=True)
    is_right = right(classes, np.concatenate([fitted.labels_, found]))[1200:]
    silhouettes = silhouette_samples(X, np.concatenate([fitted.labels_, found]), metric="cosine")[1200:]
    low, high = np.array_split(is_right[np.argsort(sure, kind="stable")], 2)
    assert high.mean() > low.mean()
    assert area(sure, is_right) <= area(silhouettes, is_right)

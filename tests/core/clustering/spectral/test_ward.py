"""More than 50 clusters have one start, by merging."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.metrics import adjusted_rand_score

from ebsc_core.clustering.spectral import ward as module
from ebsc_core.clustering.spectral.kmeans import MANY, kmeans
from ebsc_core.clustering.spectral.ward import ward_centers

GROUPS = 80


def rows_of(n: int = 1600, spread: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(n) % GROUPS)
    rows = rng.normal(size=(GROUPS, 40))[labels] + spread * rng.normal(size=(n, 40))
    return rows.astype(np.float32), labels


def ring_graph(labels: np.ndarray) -> sparse.csr_matrix:
    """Connect the rows of each group in a ring."""
    order = np.argsort(labels, kind="stable").reshape(GROUPS, -1)
    a, b = order.ravel(), np.roll(order, 1, axis=1).ravel()
    half = sparse.csr_matrix((np.ones(len(a), np.float32), (a, b)), shape=(len(a), len(a)))
    return sparse.csr_matrix(half + half.T)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat eight hundred groups as many."""
    monkeypatch.setattr(module, "MOST", 800)


def test_up_to_fifty_clusters_are_those_of_scikit_learn() -> None:
    rows, _ = rows_of()
    expected = KMeans(MANY, n_init=2, random_state=5).fit_predict(rows)
    assert (kmeans(rows, MANY, 2, 5) == expected).all()


@pytest.mark.parametrize("with_graph", [True, False])
@pytest.mark.usefixtures("few")
def test_many_clusters_are_found_where_random_starts_miss_some(with_graph: bool) -> None:
    rows, labels = rows_of()
    assert adjusted_rand_score(labels, KMeans(GROUPS, n_init=5, random_state=0).fit_predict(rows)) < 0.99
    found = kmeans(rows, GROUPS, 10, 0, graph=ring_graph(labels) if with_graph else None)
    assert adjusted_rand_score(labels, found) == 1
    assert found.dtype == np.int64


def test_few_rows_are_merged_one_by_one() -> None:
    rows, _ = rows_of(spread=1.0)
    merged = AgglomerativeClustering(GROUPS).fit_predict(rows)
    expected = np.stack([rows[merged == k].mean(axis=0) for k in range(GROUPS)])
    found = ward_centers(rows, GROUPS, 0, None)
    assert np.sort(found, axis=0) == pytest.approx(np.sort(expected, axis=0), abs=1e-5)


@pytest.mark.usefixtures("few")
def test_a_graph_that_joins_too_much_is_left_aside() -> None:
    rows, _ = rows_of()
    edgeless = sparse.csr_matrix((len(rows), len(rows)), dtype=np.float32)
    assert (ward_centers(rows, GROUPS, 0, edgeless) == ward_centers(rows, GROUPS, 0, None)).all()


def test_fewer_distinct_rows_than_many_clusters_are_survived() -> None:
    labels = np.repeat([0, 1, 2], 50)
    found = kmeans(np.eye(3, dtype=np.float32)[labels], 60, 2, 0)
    assert adjusted_rand_score(labels, found) == 1

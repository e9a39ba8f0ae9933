"""Of k-means starts that are nearly as good, the graph decides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.cluster import KMeans

from ebsc_core.clustering.metrics import modularity
from ebsc_core.clustering.spectral import kmeans as module
from ebsc_core.clustering.spectral.kmeans import kmeans


def graph_of(n: int, seed: int, density: float = 0.2) -> sparse.csr_matrix:
    half = sparse.random(n, n, density, random_state=seed, dtype=np.float32)
    return sparse.csr_matrix(half + half.T)


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**31))
def test_modularity_is_newmans_sum_over_all_pairs(n: int, k: int, seed: int) -> None:
    graph = graph_of(n, seed)
    clusters = np.random.default_rng(seed).integers(0, k, n)
    dense, total = graph.toarray().astype(float), float(graph.sum())
    degrees = dense.sum(axis=1)
    same = clusters[:, None] == clusters
    expected = ((dense - np.outer(degrees, degrees) / total) * same).sum() / total if total else 0
    assert modularity(graph, clusters) == pytest.approx(expected, abs=1e-6)


def test_modularity_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, clusters = graph_of(100, 0), np.arange(100) % 3
    whole = modularity(graph, clusters)
    monkeypatch.setattr("ebsc_core.clustering.metrics.BLOCK_ROWS", 7)
    assert modularity(graph, clusters) == pytest.approx(whole)


def test_one_cluster_and_a_graph_without_edges_have_no_modularity() -> None:
    assert modularity(graph_of(20, 0), np.zeros(20, np.int64)) == pytest.approx(0, abs=1e-6)
    assert modularity(sparse.csr_matrix((5, 5), dtype=np.float32), np.arange(5)) == 0


def square(jitter: float = 0.02, each: int = 50, lift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return points around the corners of a square, whose halves may be left and right or above and below.

    With a ``lift`` the square is higher than wide, so that k-means prefers above and below.
    """
    corners = np.array([[0, 0], [0, 1 + lift], [1, 0], [1, 1 + lift]])
    corner = np.repeat(np.arange(4), each)
    noise = jitter * np.random.default_rng(0).normal(size=(4 * each, 2))
    return (corners[corner] + noise).astype(np.float32), corner


def joined(corner: np.ndarray, pairs: list[tuple[int, int]]) -> sparse.csr_matrix:
    """Connect all points of each corner with one another, and those of the given corners."""
    together = corner[:, None] == corner
    for a, b in pairs:
        both = np.isin(corner, (a, b))
        together |= both[:, None] & both
    return sparse.csr_matrix((together & ~np.eye(len(corner), dtype=bool)).astype(np.float32))


LEFT_RIGHT, ABOVE_BELOW = [(0, 1), (2, 3)], [(0, 2), (1, 3)]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("pairs", [LEFT_RIGHT, ABOVE_BELOW])
def test_the_graph_decides_between_starts_that_are_as_good(
    pairs: list[tuple[int, int]], whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not whole:  # as for more than 20,000 rows
        monkeypatch.setattr(module, "WHOLE", 50)
        monkeypatch.setattr(module, "SAMPLE", 100)
        monkeypatch.setattr(module, "SAMPLE_PER_CLUSTER", 10)
    rows, corner = square()
    found = kmeans(rows, 2, 30, 0, graph=joined(corner, pairs))
    for a, b in pairs:
        assert len(set(found[np.isin(corner, (a, b))])) == 1
    assert len(set(found)) == 2


def test_the_graph_does_not_choose_a_start_that_is_clearly_worse() -> None:
    rows, corner = square(lift=0.2)
    found = kmeans(rows, 2, 30, 0, graph=joined(corner, LEFT_RIGHT))
    assert (found == kmeans(rows, 2, 30, 0)).all()
    assert len(set(found[np.isin(corner, (0, 2))])) == 1


def test_without_a_graph_the_starts_are_those_of_scikit_learn() -> None:
    rows, _ = square(jitter=0.6)
    assert (kmeans(rows, 5, 9, 4) == KMeans(5, n_init=9, random_state=4).fit_predict(rows)).all()

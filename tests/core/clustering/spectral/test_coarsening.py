from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from ebsc_core.clustering.spectral.coarsening import coarsened, degrees, heaviest_neighbors, inverse_roots


def graph_of(weights: np.ndarray) -> sparse.csr_matrix:
    return sparse.csr_matrix(weights.astype(np.float32))


def random_weights(n: int, density: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    half = np.triu(rng.random((n, n)) * (rng.random((n, n)) < density), 1)
    return half + half.T


@given(n=st.integers(1, 60), density=st.floats(0, 0.4), seed=st.integers(0, 10_000))
def test_weights_are_summed_within_and_between_aggregates(n: int, density: float, seed: int) -> None:
    weights = random_weights(n, density, seed)
    coarse, aggregate = coarsened(graph_of(weights))
    indicator = np.eye(coarse.shape[0])[aggregate]
    np.testing.assert_allclose(coarse.toarray(), indicator.T @ weights @ indicator, rtol=1e-4, atol=1e-5)
    assert set(aggregate) == set(range(coarse.shape[0]))


@given(n=st.integers(2, 60), density=st.floats(0, 0.2), seed=st.integers(0, 10_000))
def test_no_aggregate_reaches_into_another_piece(n: int, density: float, seed: int) -> None:
    weights = random_weights(n, density, seed)
    coarse, aggregate = coarsened(graph_of(weights))
    connected = weights.sum(axis=1) > 0
    _, piece = connected_components(graph_of(weights), directed=False)
    for one in np.unique(aggregate[connected]):
        assert len(np.unique(piece[(aggregate == one) & connected])) == 1
    # Every node with an edge is joined to another; those without share one aggregate.
    sizes = np.bincount(aggregate)
    assert (sizes[aggregate[connected]] >= 2).all()
    assert len(np.unique(aggregate[~connected])) <= 1
    assert coarse.shape[0] <= connected.sum() // 2 + 1


@given(n=st.integers(2, 40), density=st.floats(0.05, 0.5), seed=st.integers(0, 10_000))
def test_the_pick_is_the_neighbor_of_largest_normalized_weight(n: int, density: float, seed: int) -> None:
    weights = random_weights(n, density, seed)
    picks = heaviest_neighbors(graph_of(weights))
    scale = inverse_roots(weights.sum(axis=1))
    measure = scale[:, None] * weights * scale
    connected = weights.sum(axis=1) > 0
    chosen = measure[np.arange(n), picks][connected]
    np.testing.assert_allclose(chosen, measure.max(axis=1)[connected], rtol=2e-3)


def test_equal_weights_do_not_chain_up_into_one_aggregate() -> None:
    """A ring of equal weights: were the first neighbour to win, it would be joined as a whole."""
    n = 3000
    steps = [1, 2, 3, 4, 5]
    ring = sparse.diags_array(
        np.ones((4 * len(steps), n)), offsets=[s for k in steps for s in (k, -k, k - n, n - k)], shape=(n, n)
    )
    coarse, aggregate = coarsened(sparse.csr_matrix(ring.astype(np.float32)))
    assert n / 20 < coarse.shape[0] <= n / 2
    assert np.bincount(aggregate).max() < n / 10


def test_the_inner_weight_of_an_aggregate_is_no_neighbor() -> None:
    graph = graph_of(np.array([[9.0, 1, 0], [1, 9, 2], [0, 2, 9]]))
    assert heaviest_neighbors(graph).tolist() == [1, 2, 1]


def test_nodes_without_edges_have_no_scale() -> None:
    graph = graph_of(np.array([[0.0, 4, 0], [4, 0, 0], [0, 0, 0]]))
    assert inverse_roots(degrees(graph)).tolist() == pytest.approx([0.5, 0.5, 0])

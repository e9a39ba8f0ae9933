from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebsc_core.clustering.affinity import affinity, nearest_neighbors, symmetrized
from ebsc_core.config.schema import AffinityOptions
from ebsc_core.plugins.interfaces import Coefficients


def random_coefficients(n: int, k: int, seed: int) -> Coefficients:
    """Signed, some of them zero, never on self."""
    rng = np.random.default_rng(seed)
    indices = np.stack([rng.choice(np.delete(np.arange(n), i), k, replace=False) for i in range(n)])
    values = rng.normal(size=(n, k)) * (rng.random((n, k)) < 0.7)
    return Coefficients(torch.from_numpy(indices), torch.from_numpy(values).float())


@given(n=st.integers(2, 25), seed=st.integers(0, 10_000), data=st.data())
@settings(max_examples=50, deadline=None)
def test_affinity_agrees_with_its_definition(n: int, seed: int, data: st.DataObject) -> None:
    coefficients = random_coefficients(n, data.draw(st.integers(1, n - 1)), seed)
    dense = np.zeros((n, n))
    np.put_along_axis(dense, coefficients.indices.numpy(), np.abs(coefficients.values.numpy()), axis=1)
    for row in dense:
        if row.sum() > 0:
            row /= row.sum()
    graph = symmetrized(coefficients)
    np.testing.assert_allclose(graph.toarray(), (dense + dense.T) / 2, atol=1e-6)


@given(n=st.integers(2, 25), seed=st.integers(0, 10_000), data=st.data())
@settings(max_examples=50, deadline=None)
def test_affinity_is_symmetric_non_negative_and_zero_on_the_diagonal(
    n: int, seed: int, data: st.DataObject
) -> None:
    graph = symmetrized(random_coefficients(n, data.draw(st.integers(1, n - 1)), seed))
    dense = graph.toarray()
    assert (dense == dense.T).all()
    assert (dense >= 0).all()
    assert (dense.diagonal() == 0).all()
    assert (graph.data != 0).all()


def test_every_expressed_row_brings_the_same_weight() -> None:
    coefficients = random_coefficients(30, 6, 1)
    expressed = int((coefficients.values != 0).any(dim=1).sum())
    assert symmetrized(coefficients).sum() == pytest.approx(expressed, rel=1e-5)


def test_unweighted_edges_are_alike_and_negligible_coefficients_are_none() -> None:
    coefficients = Coefficients(
        torch.tensor([[1, 2], [0, 2], [0, 1]]), torch.tensor([[0.9, 0.0001], [-0.3, 0.1], [0.0, 0.0]])
    )
    graph = affinity(coefficients, AffinityOptions(form="unweighted")).toarray()
    np.testing.assert_allclose(graph, [[0, 0.75, 0], [0.75, 0, 0.25], [0, 0.25, 0]])


def test_a_row_of_zeros_stays_zero() -> None:
    coefficients = Coefficients(torch.tensor([[1], [0], [0]]), torch.tensor([[1.0], [2.0], [0.0]]))
    assert symmetrized(coefficients).toarray().tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]


def test_a_weight_on_the_row_itself_is_dropped() -> None:
    coefficients = Coefficients(torch.tensor([[0], [0]]), torch.ones(2, 1))
    assert symmetrized(coefficients).toarray().tolist() == [[0, 0.5], [0.5, 0]]


def dense(coefficients: Coefficients) -> np.ndarray:
    n = len(coefficients.indices)
    full = np.zeros((n, n))
    np.put_along_axis(full, coefficients.indices.numpy(), coefficients.values.numpy(), axis=1)
    return full


@given(n=st.integers(3, 25), seed=st.integers(0, 10_000), data=st.data())
@settings(max_examples=60, deadline=None)
def test_nearest_neighbors_agree_with_their_definition(n: int, seed: int, data: st.DataObject) -> None:
    """Every edge goes to one of the nearest; which of several at one distance is left open."""
    coefficients = random_coefficients(n, data.draw(st.integers(1, n - 1)), seed)
    k = data.draw(st.integers(1, n - 1))
    rows = dense(coefficients)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    reach = np.sort(distances, axis=1)[:, k - 1]
    must, may = distances < reach[:, None] - 1e-5, distances <= reach[:, None] + 1e-5
    graph = nearest_neighbors(coefficients, k).toarray()
    assert np.isin(graph, [0, 0.5, 1]).all()
    assert (graph == graph.T).all()
    assert (graph.diagonal() == 0).all()
    assert (graph[must] >= 0.5).all()
    assert (graph[must & must.T] == 1).all()
    assert (graph[~may & ~may.T] == 0).all()
    assert graph.sum() == pytest.approx(n * k)


def test_nearest_neighbors_are_those_expressed_alike() -> None:
    """0 and 1 use the same rows, 2 and 3 others; none of them uses another of the four."""
    indices = torch.tensor([[4, 5], [4, 5], [6, 7], [6, 7], [0, 1], [0, 1], [2, 3], [2, 3]])
    values = torch.tensor([[1.0, 2.0], [3.0, 6.0], [1.0, -1.0], [2.0, -2.0]] + [[1.0, 1.0]] * 4)
    graph = nearest_neighbors(Coefficients(indices, values), 1).toarray()
    assert sorted(zip(*np.nonzero(graph), strict=True)) == [(i, i ^ 1) for i in range(8)]
    assert set(graph[graph > 0]) == {1.0}


def test_rows_of_zeros_have_neighbors_but_never_themselves() -> None:
    coefficients = Coefficients(torch.zeros(6, 2, dtype=torch.int64), torch.zeros(6, 2))
    graph = nearest_neighbors(coefficients, 2).toarray()
    assert (graph.diagonal() == 0).all()
    assert graph.sum() == 12
    assert np.isfinite(graph).all()


def test_coefficients_are_left_as_they_were() -> None:
    coefficients = random_coefficients(20, 4, 0)
    values, indices = coefficients.values.clone(), coefficients.indices.clone()
    nearest_neighbors(coefficients, 3)
    symmetrized(coefficients)
    assert torch.equal(coefficients.values, values)
    assert torch.equal(coefficients.indices, indices)


@pytest.mark.parametrize("n_neighbors", [2, 5])
def test_the_form_of_the_affinity_is_chosen_by_name(n_neighbors: int) -> None:
    coefficients = random_coefficients(20, 4, 0)
    chosen = affinity(coefficients, AffinityOptions(form="nearest_neighbors", n_neighbors=n_neighbors))
    assert (chosen != nearest_neighbors(coefficients, n_neighbors)).nnz == 0
    assert (affinity(coefficients, AffinityOptions()) != symmetrized(coefficients)).nnz == 0

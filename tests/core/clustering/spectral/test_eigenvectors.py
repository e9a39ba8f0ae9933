from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.sparse.linalg import eigsh

from ebsc_core.clustering.spectral import eigenvectors
from ebsc_core.clustering.spectral.eigenvectors import leading_eigenpairs, normalized


def random_affinity(n: int, density: float, seed: int) -> sparse.csr_matrix:
    rng = np.random.default_rng(seed)
    half = sparse.random_array((n, n), density=density, rng=rng, dtype=np.float32)
    graph = sparse.csr_matrix(half + half.T)
    graph.setdiag(0)
    graph.eliminate_zeros()
    return graph


def blocks(sizes: list[int], seed: int = 0) -> sparse.csr_matrix:
    """Dense random blocks without any edge between them."""
    rng = np.random.default_rng(seed)
    parts = []
    for size in sizes:
        part = rng.uniform(0.5, 1.5, (size, size)).astype(np.float32)
        part = part + part.T
        np.fill_diagonal(part, 0)
        parts.append(part)
    return sparse.csr_matrix(sparse.block_diag(parts, format="csr"))


def dense_pairs(graph: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """All eigenpairs by numpy, descending, of D^-1/2 W D^-1/2 written out."""
    weights = graph.toarray().astype(np.float64)
    degree = weights.sum(axis=1)
    root = np.array([1 / np.sqrt(d) if d > 0 else 0.0 for d in degree])
    values, vectors = np.linalg.eigh(root[:, None] * weights * root[None, :])
    return values[::-1], vectors[:, ::-1]


@given(
    n=st.integers(2, 90),
    density=st.floats(0.02, 0.5),
    seed=st.integers(0, 10_000),
    data=st.data(),
)
@settings(max_examples=30, deadline=None)
def test_eigenvalues_agree_with_a_dense_solver(
    n: int, density: float, seed: int, data: st.DataObject
) -> None:
    graph = random_affinity(n, density, seed)
    n_vectors = data.draw(st.integers(1, min(n, 12)))
    pairs = leading_eigenpairs(graph, n_vectors, tolerance=1e-4, max_rounds=300)
    np.testing.assert_allclose(pairs.values, dense_pairs(graph)[0][:n_vectors], atol=3e-4)
    np.testing.assert_allclose(pairs.vectors.T @ pairs.vectors, np.eye(n_vectors), atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_a_separated_subspace_agrees_with_a_dense_solver(seed: int) -> None:
    noise = random_affinity(150, 0.05, seed)
    graph = sparse.csr_matrix(blocks([60, 50, 40], seed) + 0.05 * noise)
    pairs = leading_eigenpairs(graph, 3, tolerance=1e-4)
    cosines = np.linalg.svd(dense_pairs(graph)[1][:, :3].T @ pairs.vectors, compute_uv=False)
    assert cosines.min() > 1 - 1e-4


def test_all_copies_of_a_repeated_eigenvalue_are_found() -> None:
    graph = blocks([8] * 40)
    pairs = leading_eigenpairs(graph, 41)
    np.testing.assert_allclose(pairs.values[:40], 1, atol=1e-4)
    assert pairs.values[40] < 0.5
    # Each block's indicator lies in the span of the 40 vectors.
    indicators = np.kron(np.eye(40), np.ones((8, 1)))
    scaled = indicators * np.sqrt(np.asarray(graph.sum(axis=1)))
    scaled /= np.linalg.norm(scaled, axis=0)
    np.testing.assert_allclose(np.linalg.norm(pairs.vectors[:, :40].T @ scaled, axis=0), 1, atol=1e-3)


def test_more_copies_than_the_block_holds_are_no_trouble() -> None:
    np.testing.assert_allclose(leading_eigenpairs(blocks([5] * 60), 4).values, 1, atol=1e-4)


def test_agrees_with_lanczos_on_a_connected_graph() -> None:
    chain = sparse.diags_array([np.ones(399), np.ones(399)], offsets=[-1, 1])
    graph = sparse.csr_matrix(random_affinity(400, 0.01, 5) + chain.astype(np.float32) * 0.2)
    expected = np.sort(eigsh(normalized(graph).astype(np.float64), k=6, which="LA")[0])[::-1]
    pairs = leading_eigenpairs(graph, 6, tolerance=1e-4, max_rounds=300)
    np.testing.assert_allclose(pairs.values, expected, atol=1e-4)


def test_isolated_nodes_do_no_harm() -> None:
    graph = sparse.csr_matrix(sparse.block_diag([blocks([30, 40]), np.zeros((10, 10))], format="csr"))
    pairs = leading_eigenpairs(graph.astype(np.float32), 2)
    np.testing.assert_allclose(pairs.values, 1, atol=1e-4)
    assert np.abs(pairs.vectors[70:]).max() < 1e-3


def test_a_graph_without_edges_has_eigenvalue_zero() -> None:
    pairs = leading_eigenpairs(sparse.csr_matrix((60, 60), dtype=np.float32), 3)
    assert pairs.values.tolist() == [0, 0, 0]
    assert np.isfinite(pairs.vectors).all()


def test_same_seed_same_vectors_other_seed_same_values() -> None:
    graph = blocks([40, 40, 40])
    first, again, other = (leading_eigenpairs(graph, 4, seed, 1e-4) for seed in (3, 3, 4))
    assert (first.vectors == again.vectors).all()
    assert (first.values == again.values).all()
    assert (first.vectors != other.vectors).any()
    np.testing.assert_allclose(first.values, other.values, atol=1e-3)


@pytest.mark.parametrize("n_vectors", [1, 5, 12, 20, 60])
def test_any_number_of_vectors_up_to_all(n_vectors: int) -> None:
    graph = random_affinity(60, 0.2, 0)
    pairs = leading_eigenpairs(graph, n_vectors, tolerance=1e-4, max_rounds=300)
    assert pairs.vectors.shape == (60, n_vectors)
    np.testing.assert_allclose(pairs.values, dense_pairs(graph)[0][:n_vectors], atol=3e-4)


@pytest.mark.parametrize("n_vectors", [-1, 0, 61])
def test_impossible_numbers_of_vectors_are_refused(n_vectors: int) -> None:
    with pytest.raises(ValueError, match="60"):
        leading_eigenpairs(random_affinity(60, 0.2, 0), n_vectors)


@pytest.mark.parametrize(("max_rounds", "converges"), [(1, False), (300, True)])
def test_the_residual_reported_is_the_residual(max_rounds: int, converges: bool) -> None:
    graph = random_affinity(1200, 0.01, 0)
    pairs = leading_eigenpairs(graph, 8, tolerance=1e-3, max_rounds=max_rounds)
    left = normalized(graph) @ pairs.vectors - pairs.vectors * pairs.values
    assert pairs.residual == pytest.approx(np.linalg.norm(left, axis=0).max(), rel=0.05, abs=1e-5)
    assert (pairs.residual < 1e-3) == converges


def test_a_small_graph_that_does_not_converge_is_solved_as_a_dense_one() -> None:
    graph = random_affinity(400, 0.02, 0)
    pairs = leading_eigenpairs(graph, 8, tolerance=1e-6, max_rounds=1)
    assert pairs.residual == 0
    np.testing.assert_allclose(pairs.values, dense_pairs(graph)[0][:8], atol=1e-6)
    left = normalized(graph) @ pairs.vectors - pairs.vectors * pairs.values
    assert np.linalg.norm(left, axis=0).max() < 1e-5


def test_the_affinity_is_left_as_it_was() -> None:
    graph = random_affinity(60, 0.2, 0)
    before = graph.copy()
    leading_eigenpairs(graph, 3)
    assert (graph != before).nnz == 0


@pytest.fixture
def from_coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start even small graphs from coarser ones."""
    monkeypatch.setattr(eigenvectors, "COARSEST", 40)
    monkeypatch.setattr(eigenvectors, "COARSEST_RATIO", 1)


@pytest.mark.usefixtures("from_coarse")
@pytest.mark.parametrize("seed", range(4))
def test_a_coarse_start_leads_to_the_leading_pairs(seed: int) -> None:
    graph = random_affinity(500, 0.02, seed)
    pairs = leading_eigenpairs(graph, 6, tolerance=1e-4, max_rounds=300)
    np.testing.assert_allclose(pairs.values, dense_pairs(graph)[0][:6], atol=3e-4)
    np.testing.assert_allclose(pairs.vectors.T @ pairs.vectors, np.eye(6), atol=1e-4)
    left = normalized(graph) @ pairs.vectors - pairs.vectors * pairs.values
    assert np.linalg.norm(left, axis=0).max() < 2e-4


@pytest.mark.usefixtures("from_coarse")
def test_a_coarse_start_misses_no_piece_however_small() -> None:
    sizes = [3, 3, 4, 150, 200, 90]
    shuffle = np.random.default_rng(0).permutation(sum(sizes) + 7)
    graph = sparse.csr_matrix(sparse.block_diag([blocks(sizes), np.zeros((7, 7))], format="csr"))
    pairs = leading_eigenpairs(sparse.csr_matrix(graph[shuffle][:, shuffle]), 8)
    np.testing.assert_allclose(pairs.values[:6], 1, atol=1e-4)
    assert pairs.values[6] < 0.5
    # Rows of different pieces are orthogonal, those of a piece alike, those without edges zero.
    piece = np.append(np.repeat(np.arange(6), sizes), np.full(7, -1))[shuffle]
    rows = pairs.vectors[:, :6]
    assert np.abs(rows[piece < 0]).max() < 1e-3
    rows = rows[piece >= 0] / np.linalg.norm(rows[piece >= 0], axis=1, keepdims=True)
    same = piece[piece >= 0, None] == piece[None, piece >= 0]
    np.testing.assert_allclose(rows @ rows.T, same, atol=1e-2)


@pytest.mark.usefixtures("from_coarse")
def test_a_coarse_start_of_nothing_but_isolated_nodes_is_given_up() -> None:
    pairs = leading_eigenpairs(sparse.csr_matrix((300, 300), dtype=np.float32), 3)
    assert pairs.values.tolist() == [0, 0, 0]
    few = sparse.csr_matrix(sparse.block_diag([blocks([4, 5]), np.zeros((300, 300))], format="csr"))
    pairs = leading_eigenpairs(sparse.csr_matrix(few.astype(np.float32)), 3)
    np.testing.assert_allclose(pairs.values[:2], 1, atol=1e-4)
    assert np.isfinite(pairs.vectors).all()


@pytest.mark.usefixtures("from_coarse")
def test_a_coarse_start_is_decided_by_the_seed() -> None:
    graph = random_affinity(400, 0.02, 1)
    first, again, other = (leading_eigenpairs(graph, 4, seed, 1e-4, 300) for seed in (3, 3, 4))
    assert (first.vectors == again.vectors).all()
    assert (first.vectors != other.vectors).any()
    np.testing.assert_allclose(first.values, other.values, atol=1e-4)


def test_vectors_of_little_weight_need_not_converge() -> None:
    graph = sparse.csr_matrix(blocks([60, 60, 60]) + 0.02 * random_affinity(180, 0.2, 0))

    def weigh(values: np.ndarray) -> np.ndarray:
        return values**50

    loose = leading_eigenpairs(graph, 10, tolerance=1e-3, weigh=weigh)
    assert loose.weighted_residual < 1e-3 < loose.residual
    left = np.linalg.norm(normalized(graph) @ loose.vectors - loose.vectors * loose.values, axis=0)
    assert (left[:3] < 1e-3).all()
    strict = leading_eigenpairs(graph, 10, tolerance=1e-3, max_rounds=300)
    assert strict.weighted_residual == strict.residual < 1e-3


def test_weights_that_are_tiny_at_first_stop_nothing() -> None:
    """Of a random block all values are low, and so is any high power of them."""
    pairs = leading_eigenpairs(blocks([50] * 4), 4, weigh=lambda values: np.clip(values, 0, 1) ** 200)
    np.testing.assert_allclose(pairs.values, 1, atol=1e-4)


def test_the_precision_of_products_is_left_as_it_was() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        leading_eigenpairs(random_affinity(100, 0.1, 0), 3)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.usefixtures("from_coarse")
def test_a_gpu_finds_the_same_eigenvalues() -> None:
    graph = random_affinity(400, 0.05, 0)
    here, there = (leading_eigenpairs(graph, 5, 0, 1e-4, 300, device) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(here.values, there.values, atol=1e-4)

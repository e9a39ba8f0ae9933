"""Graphs of separate pieces: the clusters are the pieces, however small and however dense they are."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

from ebsc_core import EnergySubspaceClustering
from ebsc_core.clustering import n_clusters as number
from ebsc_core.clustering.spectral.eigenvectors import leading_eigenpairs
from ebsc_core.clustering.spectral.embedding import VECTORS_PER_CLUSTER
from ebsc_plugins.clusterers.spectral import SpectralClustering, SpectralOptions


def pieces(sizes: list[int], density: float, seed: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Connect the nodes of each piece by a path and by random edges of random weights."""
    rng = np.random.default_rng(seed)
    blocks = []
    for size in sizes:
        block = np.triu(rng.uniform(0.1, 1, (size, size)) * (rng.random((size, size)) < density), 1)
        block += np.diag(rng.uniform(0.1, 1, size - 1), 1)
        blocks.append(block + block.T)
    order = rng.permutation(sum(sizes))
    graph = sparse.block_diag(blocks, format="csr", dtype=np.float32)[order][:, order].tocsr()
    return graph, np.repeat(np.arange(len(sizes)), sizes)[order]


def clusters(graph: sparse.csr_matrix, k: int) -> np.ndarray:
    return SpectralClustering(SpectralOptions(), k, 0).fit_predict(graph)


some_sizes = st.lists(st.integers(2, 30), min_size=2, max_size=8)


@given(sizes=some_sizes, density=st.sampled_from([0.3, 1.0]), seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_as_many_clusters_as_pieces_are_the_pieces(sizes: list[int], density: float, seed: int) -> None:
    graph, labels = pieces(sizes, density, seed)
    assert adjusted_rand_score(labels, clusters(graph, len(sizes))) == 1


@given(sizes=st.lists(st.integers(2, 30), min_size=3, max_size=8), seed=st.integers(0, 1000))
@settings(max_examples=25)
def test_fewer_clusters_than_pieces_divide_no_piece(sizes: list[int], seed: int) -> None:
    graph, labels = pieces(sizes, 1.0, seed)
    found = clusters(graph, len(sizes) - 1)
    assert all(len(set(found[labels == piece])) == 1 for piece in range(len(sizes)))


@given(sizes=some_sizes, seed=st.integers(0, 1000))
@settings(max_examples=15)
def test_the_search_for_their_number_divides_them_alike(sizes: list[int], seed: int) -> None:
    graph, labels = pieces(sizes, 1.0, seed)
    k = len(sizes)
    n_vectors = min(VECTORS_PER_CLUSTER * k, graph.shape[0])
    found = number._cut(leading_eigenpairs(graph, n_vectors, 0), k, 0)
    assert adjusted_rand_score(labels, found) == 1


@pytest.mark.parametrize("coefficients", ["knn", "energy", "least-squares", "elastic-net"])
@pytest.mark.parametrize("size", [6, 20])
def test_rows_of_orthogonal_groups_are_told_apart(coefficients: str, size: int) -> None:
    noise = np.random.default_rng(0).normal(size=(10 * size, 10))
    rows = (np.repeat(20 * np.eye(10), size, 0) + noise).astype(np.float32)
    short = {"refine.steps": 20} if coefficients == "energy" else None
    model = EnergySubspaceClustering(10, coefficients=coefficients, random_state=0, settings=short)
    assert adjusted_rand_score(np.repeat(np.arange(10), size), model.fit_predict(rows)) == 1


@pytest.mark.parametrize("coefficients", ["energy", "knn", "least-squares", "elastic-net"])
@given(sizes=st.lists(st.integers(2, 50), min_size=2, max_size=6), seed=st.integers(0, 1000))
@settings(max_examples=15)
def test_rows_of_pieces_smaller_than_the_number_of_coefficients_are_told_apart(
    coefficients: str, sizes: list[int], seed: int
) -> None:
    """Each piece has its own four columns, so a row of a small piece has few neighbours at all."""
    labels, rng = np.repeat(np.arange(len(sizes)), sizes), np.random.default_rng(seed)
    rows = np.zeros((len(labels), len(sizes), 4))
    rows[np.arange(len(labels)), labels] = rng.uniform(0.5, 1, (len(labels), 4))
    model = EnergySubspaceClustering(len(sizes), coefficients=coefficients, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # k-means is told to be level with it
        found = model.fit_predict(rows.reshape(len(labels), -1))
    assert adjusted_rand_score(labels, found) == 1


@given(
    small=st.lists(st.integers(3, 8), min_size=3, max_size=20),
    large=st.lists(st.integers(50, 300), max_size=2),
    seed=st.integers(0, 1000),
)
@settings(max_examples=20)
def test_small_groups_with_noise_in_all_columns_are_told_apart(
    small: list[int], large: list[int], seed: int
) -> None:
    """The nearest rows of a small group's row are of other groups, too: at a third of the cosine."""
    sizes, rng = small + large, np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rows = rng.normal(size=(len(sizes), 256))[labels] + 0.4 * rng.normal(size=(len(labels), 256))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # k-means is told to be level with it
        found = EnergySubspaceClustering(len(sizes), random_state=0).fit_predict(rows)
    assert adjusted_rand_score(labels, found) == 1


def test_equal_rows_are_one_cluster() -> None:
    model = EnergySubspaceClustering(4, random_state=0)
    labels = model.fit_predict(np.repeat(np.eye(4), 6, 0))
    assert adjusted_rand_score(np.repeat(np.arange(4), 6), labels) == 1

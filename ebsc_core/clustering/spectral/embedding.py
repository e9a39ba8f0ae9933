"""Turn eigenvectors of a graph into rows for k-means; about as many vectors count as there are clusters.

The weight of each vector is a power of its eigenvalue, as in diffusion maps (Coifman and Lafon 2006). How
fast eigenvalues fall differs a hundredfold between graphs, so the power is computed for each graph.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import brentq

from ebsc_core.clustering.spectral.eigenvectors import leading_eigenpairs

MAX_POWER = 1000.0
VECTORS_PER_CLUSTER = 4
# This is coarser than the default clusterer, which finds the clusters themselves.
TOLERANCE = 5e-3


def effective_power(eigenvalues: np.ndarray, n_clusters: int) -> float:
    """Compute the power t with ``Σ λ^(2t) = K``, at most 1,000.

    A graph of more than K connected pieces has no such t.

    Parameters
    ----------
    eigenvalues : ndarray of shape (m,)
        Leading eigenvalues in [0, 1]. If at most K of them are above 0, t is 0.
    """

    def surplus(power: float) -> float:
        return float((eigenvalues.astype(np.float64) ** power).sum()) - n_clusters

    if np.count_nonzero(eigenvalues) <= n_clusters:
        return 0.0
    if surplus(2 * MAX_POWER) >= 0:
        return MAX_POWER
    return float(brentq(surplus, 0.0, 2 * MAX_POWER)) / 2


def eigenvalue_weights(eigenvalues: np.ndarray, n_clusters: int, power: float | None = None) -> np.ndarray:
    """Compute the weight ``λ^t`` of each eigenvector, with the power of :func:`effective_power` by default.

    A vector whose eigenvalue is not above 0 says nothing about connected rows: by default it gets no weight.
    A graph of K separate pieces may have no other positive eigenvalues than K ones; then t is 0. A graph of
    few rows may have fewer than K; then the first K vectors count alike, since fewer tell fewer clusters
    apart.

    Parameters
    ----------
    eigenvalues : ndarray of shape (m,)
        Leading eigenvalues of the normalized affinity, in descending order; they are clipped to [0, 1].
    n_clusters : int
    power : float, optional
        A given t. With 0, all vectors count alike.
    """
    values = np.clip(eigenvalues, 0, 1)
    if power is not None:
        return values**power
    if np.count_nonzero(values) < n_clusters:
        return (np.arange(len(values)) < n_clusters).astype(values.dtype)
    return np.where(values > 0, values ** effective_power(values, n_clusters), 0)


def weighted_rows(vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Scale the rows of ``V diag(w)``, ``(N, m)``, to unit length; rows of zeros stay zero."""
    return of_unit_length(vectors * weights)


def of_unit_length(rows: np.ndarray) -> np.ndarray:
    """Scale rows ``(N, m)`` to unit length; rows of zeros stay zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(norms, np.finfo(np.float32).tiny)


def graph_embedding(
    graph: sparse.csr_matrix, n_clusters: int, seed: int, device: torch.device | str = "cpu"
) -> np.ndarray:
    """Compute unit-length rows of weighted eigenvectors of an affinity ``(N, N)``, at most four a cluster."""
    weights = partial(eigenvalue_weights, n_clusters=n_clusters)
    n_vectors = min(VECTORS_PER_CLUSTER * n_clusters, graph.shape[0])
    pairs = leading_eigenpairs(graph, n_vectors, seed, TOLERANCE, device=device, weigh=weights)
    return weighted_rows(pairs.vectors, weights(pairs.values))

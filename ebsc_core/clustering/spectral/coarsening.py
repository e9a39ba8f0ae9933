"""Make a smaller graph with a similar spectrum: join each node with its most important neighbour.

A block of eigenvectors of the small graph is the start of the search on the large one. Copied to the nodes
of the large graph, the vectors keep their lengths, angles and Rayleigh quotients. The eigenvectors of
eigenvalue 1 (one for each connected piece) stay exact, because no aggregate contains nodes of two pieces.

Source: the multilevel schemes of Karypis and Kumar (SIAM J. Sci. Comput. 20, 1998) and of Dhillon, Guan and
Kulis (Graclus, IEEE TPAMI 29, 2007), with a round of Borůvka's algorithm in place of a matching.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

# If neighbours have the same weight, a pseudo-random number for each edge decides. If the first neighbour
# won, chains of picks would join whole pieces. This is much less than real differences between weights.
TIE = 1e-3
MIXING = 2_654_435_769  # 2^32 over the golden ratio (Knuth), an odd number


def degrees(graph: sparse.csr_matrix) -> np.ndarray:
    """Compute the sum of each row, ``(N,)`` float64."""
    return np.asarray(graph.sum(axis=1, dtype=np.float64)).ravel()


def inverse_roots(degree: np.ndarray) -> np.ndarray:
    """Compute ``d^-½`` in float32; 0 for nodes without weight."""
    inverse = np.divide(1.0, np.sqrt(degree), out=np.zeros(len(degree)), where=degree > 0)
    return inverse.astype(np.float32)


def coarsened(graph: sparse.csr_matrix) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Join nodes into aggregates; return the graph of the aggregates, and the aggregate of each node.

    Parameters
    ----------
    graph : csr_matrix of shape (N, N)
        Symmetric, non-negative. The weight inside an aggregate is on the diagonal.

    Returns
    -------
    csr_matrix of shape (M, M)
        The graph of the aggregates.
    ndarray of shape (N,)
        int32, the aggregate of each node, from 0 to M - 1.
    """
    n = graph.shape[0]
    picks = sparse.csr_matrix(
        (np.ones(n, np.int8), heaviest_neighbors(graph), np.arange(n + 1)), shape=(n, n)
    )
    count, aggregate = connected_components(picks, directed=False)
    starts = np.concatenate([[0], np.cumsum(np.bincount(aggregate))])
    members = sparse.csr_matrix((np.ones(n, np.float32), in_order(aggregate), starts), shape=(count, n))
    # Several entries of a row may now have the same column; the product adds them up.
    towards = sparse.csr_matrix((graph.data, aggregate[graph.indices], graph.indptr), shape=(n, count))
    return sparse.csr_matrix(members @ towards), aggregate


def heaviest_neighbors(graph: sparse.csr_matrix) -> np.ndarray:
    """Find for each node the neighbour with the largest ``w_ij / √(d_i d_j)``, ``(N,)`` int32.

    The measure is symmetric, so the weights increase along a chain of picks, and the chain ends where two
    nodes pick each other. A node without neighbours picks itself, or the first node without any edge.
    """
    n = graph.shape[0]
    degree = degrees(graph)
    counts = np.diff(graph.indptr)
    rows = np.repeat(np.arange(n, dtype=np.uint32), counts)
    columns = graph.indices.astype(np.uint32)
    ties = ((rows ^ columns) * np.uint32(MIXING)).astype(np.float32) * np.float32(TIE / 2**32)
    weights = graph.data * inverse_roots(degree)[columns] * (1 + ties)
    weights[rows == columns] = 0
    heaviest = np.zeros(n, np.float32)
    some = np.flatnonzero(counts)
    heaviest[some] = np.maximum.reduceat(weights, graph.indptr[some]) if len(some) else 0
    best = np.flatnonzero((weights == np.repeat(heaviest, counts)) & (weights > 0))
    picks = np.arange(n, dtype=np.int32)
    isolated = np.flatnonzero(degree == 0)
    picks[isolated] = isolated[:1]
    picks[rows[best]] = columns[best]
    return picks


def in_order(keys: np.ndarray) -> np.ndarray:
    """Return positions that sort the keys; equal keys keep their order."""
    return np.argsort(keys, kind="stable").astype(np.int32)

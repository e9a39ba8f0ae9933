"""Smaller graphs that look alike: nodes joined with the neighbour that they hang on most, weights summed.

A block of vectors found on the small graph starts the search on the large one. Spread over the nodes it keeps
its lengths, angles and Rayleigh quotients, and eigenvalue 1 (the pieces there are) keeps its vectors exactly:
no aggregate reaches from one piece into another.

Source: the multilevel schemes of Karypis and Kumar (SIAM J. Sci. Comput. 20, 1998) and of Dhillon, Guan and
Kulis (Graclus, IEEE TPAMI 29, 2007), with a round of Borůvka's algorithm in place of a matching.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

# Where neighbours weigh the same, each edge has its say: were the first to win, chains of picks would join
# whole pieces. Much less than what tells weights apart.
TIE = 1e-3
MIXING = 2_654_435_769  # 2^32 over the golden ratio (Knuth), an odd number


def degrees(graph: sparse.csr_matrix) -> np.ndarray:
    """The sum of each row, ``(N,)`` float64."""
    return np.asarray(graph.sum(axis=1, dtype=np.float64)).ravel()


def inverse_roots(degree: np.ndarray) -> np.ndarray:
    """``d^-½`` in float32; 0 where there is no weight."""
    found = np.divide(1.0, np.sqrt(degree), out=np.zeros(len(degree)), where=degree > 0)
    return found.astype(np.float32)


def coarsened(graph: sparse.csr_matrix) -> tuple[sparse.csr_matrix, np.ndarray]:
    """The graph of the aggregates, and which aggregate each node is in.

    Parameters
    ----------
    graph : csr_matrix of shape (N, N)
        Symmetric, non-negative; what an aggregate weighs within itself is on the diagonal.

    Returns
    -------
    csr_matrix of shape (M, M), ndarray of shape (N,) int32 from 0 to M - 1
    """
    n = graph.shape[0]
    picks = sparse.csr_matrix(
        (np.ones(n, np.int8), heaviest_neighbors(graph), np.arange(n + 1)), shape=(n, n)
    )
    count, aggregate = connected_components(picks, directed=False)
    starts = np.concatenate([[0], np.cumsum(np.bincount(aggregate))])
    members = sparse.csr_matrix((np.ones(n, np.float32), in_order(aggregate), starts), shape=(count, n))
    # Several entries of a row may now share a column; the product adds them up.
    towards = sparse.csr_matrix((graph.data, aggregate[graph.indices], graph.indptr), shape=(n, count))
    return sparse.csr_matrix(members @ towards), aggregate


def heaviest_neighbors(graph: sparse.csr_matrix) -> np.ndarray:
    """For each node the neighbour of largest ``w_ij / √(d_i d_j)``, ``(N,)`` int32.

    The measure is symmetric, so a chain of picks climbs and ends where two pick one another. Nodes without
    neighbours pick themselves, or the first of those without any edge.
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
    """Positions that sort the keys, equal ones as they come."""
    return np.argsort(keys, kind="stable").astype(np.int32)

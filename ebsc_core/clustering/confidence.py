"""Measure how clearly each row belongs to its cluster. No label enters, and no cluster changes.

The share of a row's affinity that stays within its cluster is a poor judge: wrong rows often lie among
wrong rows. The eigenvectors of the graph see further. A row is *clear* if it lies near the centre of its own
cluster there and far from the others. Its confidence is the share of its affinity that goes to clear rows of
its own cluster. ``docs/experiments/clusters.md`` shows what this and other measures do on labelled data.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ebsc_core.clustering.metrics import own_share
from ebsc_core.clustering.spectral.embedding import of_unit_length

# Temperature of the softmax over cosines, and the number of clusters in it: more would drown the own one.
TEMPERATURE, NEAREST = 0.1, 10
# Number of cosines held at once: 2^22 float32 are 16 MiB.
HELD_COSINES = 1 << 22
# As many as `assignments.csv` keeps, so that a saved run assigns new rows as the run itself does.
DECIMALS = 4


def confidence(graph: sparse.csr_matrix, embedding: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute the share of each row's affinity that goes to its own cluster, weighted by :func:`clearness`.

    Parameters
    ----------
    graph : csr_matrix of shape (M, M)
        The affinity.
    embedding : ndarray of shape (M, m)
        A row of leading eigenvectors of the graph for each row.
    labels : ndarray of shape (M,)
        The clusters; -1 for noise.

    Returns
    -------
    ndarray of shape (M,)
        In [0, 1]; 0 for a row without any affinity or without a cluster.
    """
    return np.round(own_share(graph, labels, clearness(embedding, labels)), DECIMALS)


def clearness(embedding: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute the softmax weight of the own cluster among the nearest ones, ``(M,)``; 0 without a cluster.

    The softmax is over the cosines of a row of the embedding to the centres of the clusters.
    """
    result = np.zeros(len(labels))
    assigned = np.flatnonzero(labels >= 0)
    found, own = np.unique(labels[assigned], return_inverse=True)
    if not len(found):
        return result
    members = sparse.csr_matrix(
        (np.ones(len(assigned), np.float32), (own, assigned)), shape=(len(found), len(labels))
    )
    centers = of_unit_length(members @ embedding)
    size = max(1, HELD_COSINES // len(found))
    for start in range(0, len(assigned), size):
        block = slice(start, start + size)
        cosines = of_unit_length(embedding[assigned[block]]) @ centers.T
        at = np.arange(len(cosines)), own[block]
        margin = cosines[at][:, None] - cosines
        margin[at] = np.inf
        if len(found) > NEAREST:
            margin = np.partition(margin, NEAREST - 2, axis=1)[:, : NEAREST - 1]
        result[assigned[block]] = 1 / (1 + np.exp(-margin / TEMPERATURE).sum(axis=1))
    return result

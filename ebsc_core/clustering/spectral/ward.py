"""Start k-means for many clusters by merging: join rows to small groups, then the groups by Ward's method.

Of hundreds of clusters, a random start almost always halves some and joins others, and Lloyd's rounds cannot
mend this. Merging does not depend on luck, so one start is enough.

Source: Ward (J. Am. Stat. Assoc. 58, 1963). Each merge adds the least to what k-means minimizes.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.cluster.hierarchy import cut_tree, ward
from scipy.spatial.distance import squareform
from sklearn.metrics import euclidean_distances

from ebsc_core.clustering.spectral.coarsening import coarsened

# Groups to merge. Time and memory grow with their square: 4,000 take half a second and 250 MB.
MOST, MOST_PER_CLUSTER = 4_000, 4
# With fewer groups a cluster, there is too little to choose from.
LEAST_PER_CLUSTER = 2


def ward_centers(rows: np.ndarray, n_clusters: int, seed: int, graph: sparse.csr_matrix | None) -> np.ndarray:
    """Compute the means ``(K, D)`` of the clusters that merging finds in rows ``(N, D)``.

    The groups are nodes that the ``graph`` ``(N, N)`` joins. Without a graph, or if it joins too much, each
    row of a sample is a group.
    """
    most = max(MOST, MOST_PER_CLUSTER * n_clusters)
    group = np.zeros(0, np.int64) if graph is None else _joined(graph, most)
    if group.max(initial=0) < LEAST_PER_CLUSTER * n_clusters:
        rows = rows[np.random.default_rng(seed).permutation(len(rows))[:most]]
        group = np.arange(len(rows))
    distances = euclidean_distances(_means(rows, group))
    np.fill_diagonal(distances, 0)
    merges = ward(squareform(distances, checks=False))
    return _means(rows, cut_tree(merges, [n_clusters]).ravel()[group])


def _joined(graph: sparse.csr_matrix, most: int) -> np.ndarray:
    """Join nodes until there are at most so many groups; return the group of each node, ``(N,)``."""
    group = np.arange(graph.shape[0])
    while graph.shape[0] > most:
        graph, aggregate = coarsened(graph)
        group = aggregate[group]
    return group


def _means(rows: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Average the rows of each group; every group from 0 to the largest has rows."""
    count = np.bincount(group)
    members = sparse.csr_matrix((1 / count[group], (group, np.arange(len(rows)))), dtype=rows.dtype)
    return np.asarray(members @ rows)

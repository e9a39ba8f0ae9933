"""Score clusters against labels, and measure them without labels.

Labels enter only :func:`scores`, here. No choice ever depends on its result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components
from sklearn.metrics import (
    adjusted_rand_score,
    normalized_mutual_info_score,
    silhouette_score,
)
from sklearn.metrics.cluster import contingency_matrix

from ebsc_core.clustering.spectral.coarsening import degrees
from ebsc_core.data.features.rows import Rows

SILHOUETTE_SAMPLE = 2000
BLOCK_ROWS = 65_536


def scores(labels: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """Compute accuracy (best one-to-one assignment), NMI (arithmetic mean) and ARI, each at most 1.

    Parameters
    ----------
    labels, clusters : ndarray of shape (N,)
    """
    return {
        "acc": clustering_accuracy(labels, clusters),
        "nmi": float(normalized_mutual_info_score(labels, clusters)),
        "ari": float(adjusted_rand_score(labels, clusters)),
    }


def clustering_accuracy(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Compute the share of images whose cluster matches their class in the best one-to-one assignment.

    Images without a cluster (-1) count as wrong.
    """
    assigned = clusters >= 0
    if not assigned.any():
        return 0.0
    counts = contingency_matrix(labels[assigned], clusters[assigned])
    rows, columns = linear_sum_assignment(counts, maximize=True)
    return float(counts[rows, columns].sum() / len(labels))


def own_share(
    affinity: sparse.csr_matrix, clusters: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Compute for each image the share of its affinity that goes to images of its own cluster, ``(N,)``.

    The share is 1 if only its own cluster expresses the image. It is 0 for an image without any affinity or
    without a cluster. With ``weights`` ``(N,)`` in [0, 1], affinity to an image counts by its weight.
    """
    n = affinity.shape[0]
    rows = np.repeat(np.arange(n), np.diff(affinity.indptr))
    own_cluster = clusters[rows]
    same = (own_cluster == clusters[affinity.indices]) & (own_cluster >= 0)
    counted = same if weights is None else same * weights[affinity.indices]
    total = np.bincount(rows, weights=affinity.data, minlength=n)
    own = np.bincount(rows, weights=affinity.data * counted, minlength=n)
    return np.divide(own, total, out=np.zeros(n), where=total > 0)


def modularity(affinity: sparse.csr_matrix, clusters: np.ndarray) -> float:
    """Compute the modularity of clusters in a graph (Newman, "Modularity and community structure", 2006).

    It is ``Σ_k W_kk / t - (vol_k / t)²``: the share of the affinity within clusters, minus the share that
    would be expected between the same degrees at random. A graph without edges has 0.

    Parameters
    ----------
    affinity : csr_matrix of shape (N, N)
        Symmetric and non-negative.
    clusters : ndarray of shape (N,)
        Clusters, counted from 0.
    """
    degree = degrees(affinity)
    total = degree.sum()
    if not total:
        return 0.0
    within = 0.0
    for start in range(0, len(clusters), BLOCK_ROWS):
        block = affinity[start : start + BLOCK_ROWS]
        rows = np.repeat(clusters[start : start + BLOCK_ROWS], np.diff(block.indptr))
        within += float(block.data[rows == clusters[block.indices]].sum(dtype=np.float64))
    return within / total - float(((np.bincount(clusters, degree) / total) ** 2).sum())


def label_free(
    rows: Rows,
    clusters: np.ndarray,
    affinity: sparse.csr_matrix,
    within: float,
    eigenvalues: np.ndarray,
    n_clusters: int,
    seed: int,
) -> dict[str, Any]:
    """Compute figures that need no labels.

    Parameters
    ----------
    rows : Rows
        ``N`` rows of unit length.
    clusters : ndarray of shape (N,)
    affinity : csr_matrix of shape (M, M)
        The affinity of the rows that were clustered, all or a sample.
    within : float
        The mean :func:`own_share` of these rows.
    eigenvalues : ndarray of shape (>= min(K + 1, N),)
        Leading eigenvalues of the normalised affinity, descending.
    """
    sizes = np.unique(clusters[clusters >= 0], return_counts=True)[1].tolist()
    gap = (
        float(eigenvalues[n_clusters - 1] - eigenvalues[n_clusters])
        if 0 < n_clusters < len(eigenvalues)
        else None
    )
    return {
        "silhouette": sampled_silhouette(rows, clusters, seed),
        "eigengap": gap,
        "within_cluster_mass": within,
        "connected_components": int(connected_components(affinity, directed=False)[0]),
        # Numbers need not be consecutive (`like`), so zeros stand last, for the clusters that are empty.
        "cluster_sizes": sizes + [0] * (n_clusters - len(sizes)),
        "unassigned": int((clusters < 0).sum()),
    }


def sampled_silhouette(rows: Rows, clusters: np.ndarray, seed: int) -> float | None:
    """Compute the mean silhouette (cosine distance) of a seeded sample; None if it is not defined."""
    assigned = np.flatnonzero(clusters >= 0)
    chosen = np.random.default_rng(seed).permutation(assigned)[:SILHOUETTE_SAMPLE]
    n_found = len(np.unique(clusters[chosen]))
    if not 2 <= n_found < len(chosen):
        return None
    return float(silhouette_score(rows.take(chosen).numpy(), clusters[chosen], metric="cosine"))

"""Run k-means on many rows: try the starts on a sample, then finish the best one on all rows.

A few thousand rows show which start is best as well as all rows do, and later rounds hardly move the
centres. Up to 20,000 rows, and without a graph, this is scikit-learn's k-means. 51 to 2,500 clusters have
one start, by merging (:mod:`ebsc_core.clustering.spectral.ward`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.clustering.metrics import modularity
from ebsc_core.clustering.spectral.ward import ward_centers
from ebsc_core.utils.matmul import full_precision

WHOLE = 20_000
# With more clusters than the first, random starts are slow, and worse than merging (docs/performance.md).
# With more than the second, merging takes gigabytes.
MANY, MOST_MERGED = 50, 2500
# Rows that the starts see: enough of them, and enough of each cluster.
SAMPLE, SAMPLE_PER_CLUSTER = 10_000, 200
MAX_ROUNDS = 20
# By these shares of the least inertia, other starts may be above it: as good, for all that the rows tell,
# and the same (docs/experiments/clusters.md, "The choice of a start").
NEAR, EQUAL = 0.01, 1e-6
# Of the rows' variance; the squared step of the centres at which they have arrived, as in scikit-learn.
STILL = 1e-4
BLOCK_ROWS = 65_536


def kmeans(
    rows: np.ndarray,
    n_clusters: int,
    n_init: int,
    seed: int,
    device: torch.device | None = None,
    graph: sparse.csr_matrix | None = None,
    merging: bool = True,
) -> np.ndarray:
    """Cluster rows ``(N, D)``; return the labels ``(N,)`` int64 of the best of ``n_init`` starts.

    The best start has the least inertia. If the rows embed a ``graph`` ``(N, N)``, it is the one whose
    clusters have the largest modularity in it, of those whose inertia is at most 1 % above the least. Near
    ties of inertia are common, and the graph knows more than its leading eigenvectors.

    With more than 20,000 rows, the centres are finished on ``device`` (by default the CPU). The starts
    always run on the CPU, so that all devices begin with the same centres.

    With 51 to 2,500 clusters there is only one start, by ``merging``, whatever ``n_init`` is.
    """
    if merging and MANY < n_clusters <= MOST_MERGED:
        start = ward_centers(rows, n_clusters, seed, graph)
        on_device = torch.from_numpy(rows).to(device or "cpu")
        with full_precision():
            return _finished(on_device, torch.from_numpy(start).to(on_device)).cpu().numpy()
    sample = rows
    if len(rows) > WHOLE:
        count = max(SAMPLE, SAMPLE_PER_CLUSTER * n_clusters)
        sample = rows[np.random.default_rng(seed).permutation(len(rows))[:count]]
    draws = np.random.RandomState(seed)
    starts = [KMeans(n_clusters, n_init=1, random_state=draws) for _ in range(n_init)]
    # Several threads add in the order in which they end, which would decide between equal starts; and a
    # process that was forked has no others. One thread takes a tenth longer than two.
    with threadpool_limits(1, "openmp"), warnings.catch_warnings():
        # Of fewer distinct rows than clusters; the run counts its clusters itself.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for start in starts:
            start.fit(sample)
    with full_precision():
        if len(rows) <= WHOLE:
            return _best(starts, graph, lambda start: start.labels_).labels_.astype(np.int64)
        on_device = torch.from_numpy(rows).to(device or "cpu")

        def centers(start: KMeans) -> Tensor:
            return torch.from_numpy(start.cluster_centers_).to(on_device)

        best = _best(starts, graph, lambda start: _assigned(on_device, centers(start)).cpu().numpy())
        return _finished(on_device, centers(best)).cpu().numpy()


def _best(
    starts: list[KMeans], graph: sparse.csr_matrix | None, clusters_of: Callable[[KMeans], np.ndarray]
) -> KMeans:
    """Choose by the graph among the starts of nearly least inertia; without a graph, take the least."""
    starts = sorted(starts, key=lambda start: start.inertia_)
    least = starts[0].inertia_
    if graph is None:
        return starts[0]
    near = [start for start in starts if start.inertia_ <= (1 + NEAR) * least]
    # Starts of equal inertia have found the same clusters.
    different = [near[0], *(b for a, b in pairwise(near) if b.inertia_ - a.inertia_ > EQUAL * least)]
    if len(different) == 1:
        return near[0]
    return max(different, key=lambda start: modularity(graph, clusters_of(start)))


@torch.no_grad()
def _finished(rows: Tensor, centers: Tensor) -> Tensor:
    """Run Lloyd's rounds from centres ``(K, D)``; return labels ``(N,)``."""
    still = STILL * float(rows.var(dim=0).mean())
    for _ in range(MAX_ROUNDS):
        sums, counts = torch.zeros_like(centers), rows.new_zeros(len(centers))
        for block in rows.split(BLOCK_ROWS):
            # A product and not index_add, whose order of summation varies on CUDA.
            members = F.one_hot(_nearest(block, centers), len(centers)).to(rows)
            sums += members.T @ block
            counts += members.sum(dim=0)
        moved = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), centers)
        step = float((moved - centers).square().sum())
        centers = moved
        if step <= still:
            break
    return _assigned(rows, centers)


def _assigned(rows: Tensor, centers: Tensor) -> Tensor:
    """Return the nearest centre of each of many rows, ``(N,)``."""
    return torch.cat([_nearest(block, centers) for block in rows.split(BLOCK_ROWS)])


def _nearest(rows: Tensor, centers: Tensor) -> Tensor:
    """Find the nearest centre of each row, ``(B,)``; a row's squared length does not change the choice."""
    return torch.addmm(centers.square().sum(dim=1), rows, centers.T, alpha=-2).argmin(dim=1)

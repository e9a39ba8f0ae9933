"""Run k-means on many rows: try the starts on a sample, then finish the best one on all rows.

A few thousand rows show which start is best as well as all rows do, and later rounds hardly move the
centres. Up to 20,000 rows this is scikit-learn's k-means without change.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.utils.matmul import full_precision

WHOLE = 20_000
# Rows that the starts see: enough of them, and enough of each cluster.
SAMPLE, SAMPLE_PER_CLUSTER = 10_000, 200
MAX_ROUNDS = 20
# Of the rows' variance; the squared step of the centres at which they have arrived, as in scikit-learn.
STILL = 1e-4
BLOCK_ROWS = 65_536


def kmeans(
    rows: np.ndarray, n_clusters: int, n_init: int, seed: int, device: torch.device | None = None
) -> np.ndarray:
    """Cluster rows ``(N, D)``; return labels ``(N,)`` int64 of the best of ``n_init`` starts by inertia.

    With more than 20,000 rows, the centres are finished on ``device`` (by default the CPU). The starts
    always run on the CPU, so that all devices begin with the same centres.
    """
    sample = rows
    if len(rows) > WHOLE:
        count = max(SAMPLE, SAMPLE_PER_CLUSTER * n_clusters)
        sample = rows[np.random.default_rng(seed).permutation(len(rows))[:count]]
    starts = KMeans(n_clusters, n_init=n_init, random_state=seed)
    with warnings.catch_warnings():
        # Of fewer distinct rows than clusters; the run counts its clusters itself.
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = starts.fit_predict(sample)
    if len(rows) <= WHOLE:
        return labels.astype(np.int64)
    on_device = torch.from_numpy(rows).to(device or "cpu")
    with full_precision():
        return _finished(on_device, torch.from_numpy(starts.cluster_centers_).to(on_device)).cpu().numpy()


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
    return torch.cat([_nearest(block, centers) for block in rows.split(BLOCK_ROWS)])


def _nearest(rows: Tensor, centers: Tensor) -> Tensor:
    """Find the nearest centre of each row, ``(B,)``; a row's squared length does not change the choice."""
    return torch.addmm(centers.square().sum(dim=1), rows, centers.T, alpha=-2).argmin(dim=1)

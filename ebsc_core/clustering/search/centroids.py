"""Compute the centroids of cells of keys, and find the centroids nearest to a row."""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.clustering.search.index import largest, tile_scores
from ebsc_core.utils.matmul import PackedRows

# Lloyd's rounds, on this many keys a cell: 6 rounds on 64 gave no better recall.
ROUNDS = 4
SAMPLE = 32
# Past this many centroids a row meets those around its group only: all would grow with the rows' square.
# Groups for, and centroids around each, times √C. With one group for √C, rows between groups lost their way.
MAX_MET = 1024
GROUPS = 4
AROUND = 4
ROWS = 65_536


class Centroids:
    """Hold centroids ``(C, D)`` and find the ``probes`` nearest to each row.

    If there are many centroids, a row is compared only with those around its group. Groups are centroids of
    the centroids. Around a group are the centroids that are nearest to any member of it.
    """

    def __init__(self, means: Tensor, probes: int, seed: int) -> None:
        count = len(means)
        self.means, self.group = means, torch.zeros(count, dtype=torch.int64, device=means.device)
        self.groups, self.around = means[:1], torch.arange(count, device=means.device).unsqueeze(0)
        if count > MAX_MET:
            self.groups = k_means(means, GROUPS * isqrt(count), seed)
            self.group = (means @ self.groups.T).argmax(dim=1)
            self.around = self._around(min(count, max(AROUND * isqrt(count), 2 * probes)))
        self.packed = [PackedRows(means[members]) for members in self.around]
        self.probes = min(probes, count)

    def _around(self, count: int) -> Tensor:
        """Return the centroids around each group, ``(groups, count)``."""
        by_group = self.group.argsort(stable=True)
        sizes = self.group.bincount(minlength=len(self.groups)).tolist()
        found = []
        for group, members in zip(self.groups, by_group.split(sizes), strict=True):
            members = self.means[members] if len(members) else group.unsqueeze(0)
            found.append((members @ self.means.T).amax(dim=0).topk(count).indices)
        return torch.stack(found)

    def nearest(self, rows: Tensor) -> Tensor:
        """Find the positions ``(M, probes)`` of the centroids nearest to rows ``(M, D)``, nearest first."""
        found = torch.empty(len(rows), self.probes, dtype=torch.int64, device=rows.device)
        for start in range(0, len(rows), ROWS):
            part = slice(start, start + ROWS)
            group = (rows[part] @ self.groups.T).argmax(dim=1)
            asking = group.argsort(stable=True)
            sizes = group.bincount(minlength=len(self.groups)).tolist()
            for members, packed, queries in zip(self.around, self.packed, asking.split(sizes), strict=True):
                for some in queries.split(max(1, tile_scores(rows.device) // len(packed))):
                    best = largest(packed.products(rows[part][some]), found.shape[1])[1]
                    found[start + some] = members[best]
        return found


def k_means(keys: Tensor, count: int, seed: int) -> Tensor:
    """Compute unit-length centroids ``(count, D)`` of a seeded sample of keys ``(N, D)`` by inner product.

    A centroid that has lost all its keys stays where it is.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(keys), generator=generator)[: SAMPLE * count]
    sample = keys[drawn.to(keys.device)]
    means = F.normalize(sample[:count], dim=1)
    for _ in range(ROUNDS):
        cell = Centroids(means, 1, seed).nearest(sample).squeeze(1)
        sizes = cell.bincount(minlength=count)
        # Sorted and summed in runs, not by index_add, which adds in any order on CUDA.
        sums = torch.segment_reduce(sample[cell.argsort(stable=True)], "sum", lengths=sizes, axis=0)
        means = torch.where(sizes.unsqueeze(1) > 0, F.normalize(sums, dim=1), means)
    return means

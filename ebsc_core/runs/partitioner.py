"""Express and cluster all images while the network trains, for ``joint.form = "neighbors"``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ebsc_core.clustering.partition import Partition, partition
from ebsc_core.data.features.forms import form_width
from ebsc_core.data.features.pixel_rows import pixel_rows
from ebsc_core.data.images.source import ImageSource
from ebsc_core.plugins.interfaces import Objective
from ebsc_core.runs.plan import ImagePlan
from ebsc_core.runs.resolve import ResolvedSettings
from ebsc_core.training.extract import feature_blocks
from ebsc_core.utils.distributed import DistributedContext
from ebsc_core.utils.progress import Progress

NETWORK, PIXELS, BOTH = "the network", "the pixels", "network and pixels"


@dataclass
class Partitioner:
    """Return clusters and neighbors of all images, by the present network, their own pixels or both.

    Which of the three is decided each time by the share of the coefficients that stay within the clusters. No
    label enters. The graph is the one that the untrained coefficient model builds. All processes extract the
    rows, and the first one does the rest.
    """

    objective: Objective
    images: ImageSource
    plan: ImagePlan
    resolved: ResolvedSettings
    device: torch.device
    distributed: DistributedContext
    progress: Progress
    best: str = NETWORK
    """What has found the latest neighbors."""

    @torch.no_grad()
    def __call__(self) -> tuple[Tensor | None, Tensor]:
        """Return clusters ``(N,)``, or None if their number is not known, and neighbors ``(N, k)``."""
        blocks = feature_blocks(
            self.objective.backbone, self.objective, self.images, self.device, Progress(), self.distributed
        )
        rows = torch.cat([block.expressed(self.resolved.express) for block in blocks])
        found = self.distributed.broadcast(self._best_of(rows) if self.distributed.main else None)
        assert found is not None
        return found

    def _best_of(self, rows: Tensor) -> tuple[Tensor | None, Tensor]:
        rows, pixels = rows.to(self.device), self._pixels
        if pixels is None:
            found = self._partition(rows)
        elif self.resolved.n_clusters is None:
            found = self._partition(rows, pixels)
        else:
            found = self._choose(
                {
                    NETWORK: self._partition(rows),
                    PIXELS: self._of_pixels,
                    BOTH: self._partition(rows, pixels),
                }
            )
        return found.clusters, found.neighbors

    def _choose(self, ways: dict[str, Partition]) -> Partition:
        """Return the partition with most of its coefficients within clusters; say so if it is another way."""
        within = {way: found.within or 0.0 for way, found in ways.items()}
        best = max(within, key=lambda way: within[way])
        if best != self.best:
            shares = ", ".join(f"{way} {100 * share:.1f} %" for way, share in within.items())
            self.progress.note(f"neighbors are now found by {best} (coefficients within clusters: {shares})")
        self.best = best
        return ways[best]

    def _partition(self, rows: Tensor, pixels: Tensor | None = None) -> Partition:
        assert self.plan.joint is not None
        seed, whiten = self.plan.config.seed, self.resolved.joint_whiten
        width = form_width(rows.shape[1], whiten)
        if pixels is not None:
            width = form_width(rows.shape[1] + pixels.shape[1], "neighbors")
        model = self.plan.joint.build_seeded(seed, width).to(self.device).eval()
        return partition(rows, model, self.resolved.n_clusters, whiten, seed, pixels)

    @cached_property
    def _pixels(self) -> Tensor | None:
        return pixel_rows(self.images, self.device) if self.plan.config.joint.pixels else None

    @cached_property
    def _of_pixels(self) -> Partition:
        """The partition by pixels alone, which stays the same."""
        assert self._pixels is not None
        return self._partition(self._pixels)

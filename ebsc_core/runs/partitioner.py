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
from ebsc_core.utils.device import random_states, restore_random_states
from ebsc_core.utils.distributed import DistributedContext
from ebsc_core.utils.progress import Progress

# Without pixels there is nothing to compare with.
HALF = 0.5


@dataclass
class Partitioner:
    """Return clusters and neighbors of all images, by the present network and their own pixels.

    The graph is the one that the untrained coefficient model builds. All processes extract the rows, and the
    first one does the rest.
    """

    objective: Objective
    images: ImageSource
    plan: ImagePlan
    resolved: ResolvedSettings
    device: torch.device
    distributed: DistributedContext

    @torch.no_grad()
    def __call__(self) -> tuple[Tensor | None, Tensor, float]:
        """Return clusters ``(N,)``, neighbors ``(N, k)``, and the share of second views of neighbors.

        The clusters are None if their number is not known.
        """
        blocks = feature_blocks(
            self.objective.backbone, self.objective, self.images, self.device, Progress(), self.distributed
        )
        rows = torch.cat([block.expressed(self.resolved.express) for block in blocks])
        found = self.distributed.broadcast(self._partition(rows) if self.distributed.main else None)
        assert found is not None
        share = self.plan.config.joint.share
        if share == "auto":
            share = HALF if found.distance is None else found.distance
        return found.clusters, found.neighbors, share

    def _partition(self, rows: Tensor) -> Partition:
        assert self.plan.joint is not None
        seed, whiten, pixels = self.plan.config.seed, self.resolved.joint_whiten, self._pixels
        width = form_width(rows.shape[1], whiten)
        if pixels is not None:
            width = form_width(rows.shape[1] + pixels.shape[1], "neighbors")
        # Dropout and the like go on with their own numbers: a seed must not repeat them after each partition.
        states = random_states(self.device)
        model = self.plan.joint.build_seeded(seed, width).to(self.device).eval()
        restore_random_states(self.device, states)
        return partition(rows.to(self.device), model, self.resolved.n_clusters, whiten, seed, pixels)

    @cached_property
    def _pixels(self) -> Tensor | None:
        return pixel_rows(self.images, self.device) if self.plan.config.joint.pixels else None

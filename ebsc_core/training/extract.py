"""Features of every image, without augmentation."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ebsc_core.features import FeatureTable
from ebsc_core.interfaces import Backbone, Objective
from ebsc_core.progress import Progress

BATCH = 512


@torch.no_grad()
def feature_blocks(
    backbone: Backbone,
    objective: Objective | None,
    images: Tensor,
    device: torch.device,
    progress: Progress,
) -> Iterator[FeatureTable]:
    """Features and, with an objective, embeddings, float32 on the CPU: block by block in the images' order.

    Always computed in float32: this is one pass, and what is cached should not carry bf16's rounding.

    Parameters
    ----------
    backbone : Backbone
        In evaluation mode afterwards.
    objective : Objective, optional
        The trained objective whose embeddings to keep.
    images : Tensor of shape (N, C, H, W)
        uint8.
    """
    backbone.eval()
    if objective is not None:
        objective.eval()
    progress.start("extract features", len(images), "images")
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH].to(device).float().div_(255)
        batch = batch.contiguous(memory_format=torch.channels_last)
        out = backbone(batch)
        yield FeatureTable(out.cpu(), None if objective is None else objective.embed(out).cpu())
        progress.advance(min(start + BATCH, len(images)))
    progress.finish()

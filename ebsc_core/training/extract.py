"""Features of every image, without augmentation."""

from __future__ import annotations

import torch
from torch import Tensor

from ebsc_core.features import FeatureTable
from ebsc_core.interfaces import Backbone, Objective
from ebsc_core.progress import Progress

BATCH = 512


@torch.no_grad()
def extract(
    backbone: Backbone,
    objective: Objective | None,
    images: Tensor,
    device: torch.device,
    progress: Progress,
) -> FeatureTable:
    """Features ``(N, D)`` and, with an objective, embeddings ``(N, E)``, float32 on the CPU.

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
    features, embeddings = [], []
    progress.start("extract features", len(images), "images")
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH].to(device).float().div_(255)
        batch = batch.contiguous(memory_format=torch.channels_last)
        out = backbone(batch)
        features.append(out.cpu())
        if objective is not None:
            embeddings.append(objective.embed(out).cpu())
        progress.advance(min(start + BATCH, len(images)))
    progress.finish()
    return FeatureTable(torch.cat(features), torch.cat(embeddings) if embeddings else None)

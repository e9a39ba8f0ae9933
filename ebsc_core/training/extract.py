"""Features of every image, without augmentation."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ebsc_core.data.features.store import FeatureTable
from ebsc_core.data.images.source import ImageSource
from ebsc_core.plugins.interfaces import Backbone, Objective
from ebsc_core.utils.distributed import SINGLE_PROCESS, DistributedContext
from ebsc_core.utils.progress import Progress

BATCH = 512


@torch.no_grad()
def feature_blocks(
    backbone: Backbone,
    objective: Objective | None,
    images: ImageSource,
    device: torch.device,
    progress: Progress,
    distributed: DistributedContext = SINGLE_PROCESS,
) -> Iterator[FeatureTable]:
    """Features and, with an objective, embeddings, float32 on the CPU: block by block in the images' order.

    Always computed in float32: this is one pass, and what is cached should not carry bf16's rounding.
    Several processes compute a share of each block and are all given the whole.

    Parameters
    ----------
    backbone : Backbone
        In evaluation mode afterwards.
    objective : Objective, optional
        The trained objective whose embeddings to keep.
    images : ImageSource
    """
    backbone.eval()
    if objective is not None:
        objective.eval()
    progress.start("extract features", len(images), "images")
    blocks = torch.arange(len(images)).split(BATCH * distributed.count)
    plan = [_share(block, distributed) for block in blocks]
    for block, pixels in zip(blocks, images.batches(plan, device), strict=True):
        batch = pixels.float().div_(255).contiguous(memory_format=torch.channels_last)
        out = backbone(batch)
        features = distributed.gather(out)[: len(block)].cpu()
        embeddings = None
        if objective is not None:
            embeddings = distributed.gather(objective.embed(out))[: len(block)].cpu()
        yield FeatureTable(features, embeddings)
        progress.advance(int(block[-1]) + 1)
    progress.finish()


def _share(block: Tensor, distributed: DistributedContext) -> Tensor:
    """The positions of a block that are this process's; all have as many, some by repeating one."""
    each = -(-len(block) // distributed.count)
    share = block[distributed.index * each :][:each]
    missing = each - len(share)
    return torch.cat([share, block[:1].expand(missing)]) if missing else share

"""Fit a backbone, and extract features of every image, without augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import Module

from ebsc_core.data.features.store import FeatureTable
from ebsc_core.data.images.source import ImageSource
from ebsc_core.plugins.interfaces import Backbone, Objective, require_features
from ebsc_core.plugins.kinds import Kind
from ebsc_core.plugins.refusal import refuse
from ebsc_core.utils.distributed import SINGLE_PROCESS, DistributedContext
from ebsc_core.utils.errors import TrainingError, is_out_of_memory
from ebsc_core.utils.progress import Progress

BATCH = 512


def fit_backbone(backbone: Backbone, images: ImageSource, note: Callable[[str], None]) -> None:
    """Let a backbone learn what gradients cannot learn, and say so if the source gives it a part only."""
    if type(backbone).fit is Backbone.fit:
        return
    given = images.to_fit()
    if len(given) < len(images):
        some = f"{len(given):,} of the {len(images):,} images"
        note(f"the backbone is fitted to at most {some}{images.where()}")
    backbone.fit(given)


def varies_with_seed(backbone: Backbone, trains: bool, ours: bool) -> bool:
    """Return whether the features of a backbone may be others with another seed.

    Given weights that nothing trains are the same. So are our backbones without weights; those of others may
    draw their buffers, and what they fit.
    """
    if trains:
        return True
    if backbone.pretrained:
        return not ours and type(backbone).fit is not Backbone.fit
    return not ours or any(True for _ in backbone.parameters())


@torch.no_grad()
def feature_blocks(
    backbone: Backbone,
    objective: Objective | None,
    images: ImageSource,
    device: torch.device,
    progress: Progress,
    distributed: DistributedContext = SINGLE_PROCESS,
    bf16: bool = False,
    first: int = 0,
) -> Iterator[FeatureTable]:
    """Yield features and, with an objective, embeddings: float32, on the CPU, in blocks, in order.

    If there are several processes, each computes a share of every block and all yield whole
    blocks.

    Parameters
    ----------
    backbone : Backbone
        The backbone; this function leaves it in evaluation mode.
    objective : Objective, optional
        The trained objective that computes the embeddings.
    images : ImageSource
    bf16 : bool
        Whether the backbone computes in bf16 autocast; see
        :func:`ebsc_core.training.precision.extracts_in_bf16`.
    first : int
        The number of the first image; those before it are left out.
    """
    if first >= len(images):
        return  # an interrupted extraction had kept all
    network = backbone.eval().for_inference()
    if not callable(network):
        refuse(backbone, Kind.BACKBONE, f"for_inference returned a {type(network).__name__}, not a module")
    if objective is not None:
        objective.eval()
    progress.start("extract features", len(images) - first, "images")
    blocks = torch.arange(first, len(images)).split(BATCH * distributed.count)
    plan = [_share(block, distributed) for block in blocks]
    at_once = BATCH
    for block, pixels in zip(blocks, images.batches(plan, device), strict=True):
        batch = pixels.float().div_(255).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            while (out := _features(network, backbone, batch, at_once)) is None:
                at_once = min(at_once, len(batch)) // 2
                progress.note(f"memory        {at_once} images at a time: more were too many")
        features = distributed.gather(out)[: len(block)].cpu()
        embeddings = None
        if objective is not None:
            embeddings = distributed.gather(objective.embed(out))[: len(block)].cpu()
        yield FeatureTable(features, embeddings)
        progress.advance(int(block[-1]) + 1 - first)
    progress.finish()


def _features(network: Module, backbone: Backbone, batch: Tensor, at_once: int) -> Tensor | None:
    """Compute features ``(B, D)`` of a batch, some images at once; None if memory was short for so many."""
    try:
        parts = [require_features(network(part), backbone, len(part)) for part in batch.split(at_once)]
    except Exception as error:  # components may wrap what torch raises, and the caller must be free of it
        if min(at_once, len(batch)) == 1 or not is_out_of_memory(error):
            raise
        return None
    return torch.cat(parts).float()


def finite(blocks: Iterable[FeatureTable], what_to_do: str = "") -> Iterator[FeatureTable]:
    """Yield the blocks while their features and embeddings are finite.

    Raises
    ------
    TrainingError
        If those of a block are not; ``what_to_do`` ends the text.
    """
    for block in blocks:
        tables = {"backbone's features": block.features, "objective's embeddings": block.embeddings}
        for what, rows in tables.items():
            if rows is not None and not bool(torch.isfinite(rows).all()):
                raise TrainingError(f"the {what} are not finite{what_to_do}")
        yield block


def _share(block: Tensor, distributed: DistributedContext) -> Tensor:
    """Return this process's positions of a block; all shares have equal length, some repeat a position."""
    each = -(-len(block) // distributed.count)
    share = block[distributed.index * each :][:each]
    missing = each - len(share)
    return torch.cat([share, block[:1].expand(missing)]) if missing else share

"""Compute features of images with a backbone as it is, without training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import torch

from ebsc_core.config.schema import RunConfig
from ebsc_core.data.features.store import FeatureTable, FeatureWriter
from ebsc_core.data.images.reading import read_images
from ebsc_core.data.images.source import ImageSource
from ebsc_core.plugins.faults import origin
from ebsc_core.plugins.interfaces import Backbone
from ebsc_core.plugins.registry import Registry
from ebsc_core.runs.plan import ImagePlan, make_plan
from ebsc_core.training.extract import feature_blocks, finite, fit_backbone
from ebsc_core.training.kept_blocks import KeptBlocks
from ebsc_core.training.precision import extracts_in_bf16
from ebsc_core.utils.device import prepare, resolve_device
from ebsc_core.utils.errors import NOTHING_WRITTEN, ConfigError, DataError, Interrupted
from ebsc_core.utils.hashing import digest
from ebsc_core.utils.paths import features_folder
from ebsc_core.utils.progress import Progress
from ebsc_core.utils.weights import weights_digest


def extract_features(config: RunConfig, registry: Registry, progress: Progress, out: Path) -> tuple[int, int]:
    """Write features of the images that ``config`` names, with names and labels; return ``(N, D)``.

    An extraction that was killed goes on where it was, if the cache keeps its rows.
    A backbone that is fitted to images (a principal subspace, for instance) is; no gradient is followed.

    Raises
    ------
    EbscError
        If a component cannot be had, images cannot be read, or the file cannot be written.
    """
    plan = make_plan(config, registry)
    if not isinstance(plan, ImagePlan):
        raise ConfigError("features are given; name images to extract features from")
    assert plan.data
    device = resolve_device(config.device)
    prepare(device)
    images = read_images(plan.data, config.data, config.seed, progress.warn, side=plan.side)
    backbone = _fitted_backbone(plan, images, device, progress)
    made_from = {"images": images.digest(), "backbone": plan.backbone.record(), "seed": config.seed}
    if backbone.pretrained:
        made_from["weights"] = weights_digest(backbone)
    if bf16 := extracts_in_bf16(config.precision, device, backbone, trains=False):
        made_from["precision"] = "bf16"
        progress.note("precision     bf16 (`precision=fp32` is slower and more exact)")

    def extract(first: int) -> Iterator[FeatureTable]:
        return finite(feature_blocks(backbone, None, images, device, progress, bf16=bf16, first=first))

    key, cache = digest(made_from), features_folder(config.cache)
    kept = KeptBlocks(cache, key, progress) if cache else None
    try:
        with closing(images), FeatureWriter(out, key, made_from, images.ids, images.labels) as writer:
            for block in kept.resumed(extract) if kept else extract(0):
                writer.append(block)
    except OSError as error:
        if origin(error):
            raise
        raise DataError(f"cannot write {out}: {error.strerror or error}") from error
    except KeyboardInterrupt as error:
        if kept and kept.first:
            raise Interrupted(
                f"interrupted; {kept.first} of {len(images)} images are kept, the same command goes on"
            ) from error
        error.add_note(NOTHING_WRITTEN)
        raise
    if kept:
        kept.remove()
    return len(images), backbone.width


def _fitted_backbone(
    plan: ImagePlan, images: ImageSource, device: torch.device, progress: Progress
) -> Backbone:
    """Build the backbone and fit it to the images; warn if its weights are random."""
    choice, seed, info = plan.backbone, plan.config.seed, images.info()
    backbone: Backbone = choice.build_seeded(seed, info)
    # Compared while both are on the CPU.
    random = not backbone.pretrained and _weights_are_random(backbone, choice.build_seeded(seed + 1, info))
    backbone = backbone.to(device)
    fit_backbone(backbone, images, progress.note)
    progress.note(f"backbone      {backbone.describe()}")
    if random:
        progress.warn(
            f"the weights of {choice.name} are random, and nothing trains here; load trained ones "
            f"(`ebsc plugins show {choice.name}` lists the options), or let `ebsc run` train it"
        )
    return backbone


def _weights_are_random(backbone: Backbone, other: Backbone) -> bool:
    """Return whether most weights of a backbone differ from those of the same one with another seed."""
    pairs = zip(backbone.parameters(), other.parameters(), strict=True)
    differ = [not torch.equal(ours, theirs) for ours, theirs in pairs if ours.ndim > 1]
    return sum(differ) > len(differ) / 2

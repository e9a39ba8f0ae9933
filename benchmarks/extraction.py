"""Measure `ebsc features extract` with trained weights: images a second beside the bare network's.

    EBSC_DATA_DIR=... OMP_NUM_THREADS=1 python benchmarks/extraction.py --weights FILE --limit 2000

The bare network computes on images that are in memory at its size already, before and after the extraction,
with as many images at a time. It is the network as timm builds it, without what a run does to be faster. Both
figures are per second of CPU time, so that a busy machine counts for both alike. The agreement is the share
of images whose class most of their ten nearest neighbors (by cosine) have.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from measuring import command, described, keep, timed, vote
from safetensors.torch import save_file

from ebsc_core.config.loading import load_config
from ebsc_core.plugins.registry import Kind, Registry
from ebsc_core.plugins.selection import choose
from ebsc_core.runs.extract_features import extract_features
from ebsc_core.utils.progress import Progress

NEIGHBORS = 10
AT_ONCE = 64


def main() -> None:
    given = arguments()
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "weights.safetensors") if given.by_order else Path(given.weights)
        if given.by_order:
            in_order(given.backbone, given.weights, weights)
        settings = {
            "data.name": str(Path(os.environ["EBSC_DATA_DIR"], given.data)),
            "data.limit": given.limit,
            "backbone.name": given.backbone,
            "backbone.weights": str(weights),
            "device": "cpu",
        }
        record = measured(settings, given.bare, Path(folder, "features.h5"))
    print(json.dumps(record, indent=2))
    keep(described() | {"data": given.data, "backbone": given.backbone} | record, given.out)


def arguments() -> argparse.Namespace:
    parser = command(str(__doc__))
    parser.add_argument("--data", default="cifar10-test.zip", help="a file in EBSC_DATA_DIR")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--weights", required=True)
    parser.add_argument(
        "--by-order",
        action="store_true",
        help="the tensors of the file have other names than timm's, but the same order",
    )
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument(
        "--bare", type=int, default=512, help="images for the bare network, in each of two turns"
    )
    return parser.parse_args()


def in_order(backbone: str, file: str, out: Path) -> None:
    """Rename the tensors of a checkpoint to those of timm's model, one after another."""
    state = torch.load(file, map_location="cpu", weights_only=True)
    renamed = timm.models.remap_state_dict(state, timm.create_model(backbone))
    save_file({name: value.contiguous() for name, value in renamed.items()}, out)


def measured(settings: dict[str, Any], bare: int, out: Path) -> dict[str, Any]:
    config, registry = load_config(flags=settings), Registry()
    network = choose(registry, Kind.BACKBONE, config.backbone)
    before = bare_rate(network, bare)
    (n, width), seconds = timed(lambda: extract_features(config, registry, Progress(), out))
    rates = [before, bare_rate(network, bare)]
    return {
        "images": n,
        "width": width,
        "seconds": round(seconds["wall"], 1),
        "cpu_seconds": round(seconds["cpu"], 1),
        "images_per_cpu_second": round(n / seconds["cpu"], 2),
        "bare_images_per_cpu_second": [round(rate, 2) for rate in rates],
        "share_of_bare": round(n / seconds["cpu"] / np.mean(rates), 3),
        "neighbor_agreement": round(vote(out, NEIGHBORS), 4),
    }


@torch.no_grad()
def bare_rate(choice: Any, n: int) -> float:
    """Return images per CPU second of the network alone, on images of its size."""
    from ebsc_core import ImageInfo

    side = choice.start.side
    backbone = choice.build(ImageInfo(3, side, side, (0.5,) * 3, (0.25,) * 3)).eval()
    size = backbone.framing.size
    images = torch.rand(AT_ONCE, 3, size, size).contiguous(memory_format=torch.channels_last)
    backbone.model(images[:8])  # the first call prepares
    turns = n // AT_ONCE
    _, seconds = timed(lambda: [backbone.model(images) for _ in range(turns)])
    return turns * AT_ONCE / seconds["cpu"]


if __name__ == "__main__":
    main()

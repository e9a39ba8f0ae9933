"""Compare SimCLR training steps of ebsc, lightly and solo-learn, each with its own loader and transforms.

    pip install lightly
    git clone https://github.com/vturrisi/solo-learn
    pip install --target deps lightning omegaconf hydra-core einops wandb torchmetrics
    PYTHONPATH=deps python benchmarks/speed/simclr.py --solo-learn solo-learn [--out FILE.json]

All sides train a ResNet-18 on the same number of random 32x32 colour images, batch size 256. They use
float32 (on CUDA with TF32), and their best setting: ours as ``auto`` chooses, theirs in bf16 autocast and
channels-last. ``--stem cifar`` gives all sides the 3x3 stem without max-pool that is usual at this size;
``imagenet`` keeps the original stem, as in lightly's own example. Views are SimCLR's without blur.
solo-learn's module also trains a linear classifier, and its small stem pads by 2. For both other libraries,
the script measures the plain loop over their loader, without Lightning's Trainer.

The script counts the arithmetic of our step, and compares it with a large matrix product in the same
precision.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sides import CLOCKS, Side, command, compare, keep
from simclr_sides import lightlys, ours, products, solo_learns


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--solo-learn", type=Path, metavar="CHECKOUT")
    parser.add_argument("--stem", choices=("cifar", "imagenet"), default="cifar")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=1, help="steps of one piece of work")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="processes of the other libraries' loaders")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", metavar="SIDE", help="run these sides only, e.g. ours")
    options = parser.parse_args()
    given = (options.stem, options.batch, options.steps, options.device)
    sides = [
        Side("ours", ours, ("auto", *given), figures),
        Side("ours, fp32", ours, ("fp32", *given), figures),
        Side("lightly, fp32", lightlys, (False, options.workers, *given), figures),
        Side("lightly, bf16", lightlys, (True, options.workers, *given), figures),
        Side("product, fp32", products, ("float32", options.device), figures),
        Side("product, bf16", products, ("bfloat16", options.device), figures),
    ]
    if options.solo_learn:
        solo = (str(options.solo_learn), options.workers, *given)
        sides.insert(4, Side("solo-learn, fp32", solo_learns, (False, *solo), figures))
        sides.insert(5, Side("solo-learn, bf16", solo_learns, (True, *solo), figures))
    if options.only:
        sides = [side for side in sides if side.name in options.only]
    record = compare(sides, options.rounds, options.threads)
    settings = ("stem", "batch", "steps", "workers", "device")
    record["settings"] = {name: getattr(options, name) for name in settings}
    record["versions"] |= versions(options.solo_learn)
    summary = summarized(record["sides"], options.batch * options.steps)
    if not options.solo_learn:
        summary["left_out"] = {"solo-learn": "no --solo-learn CHECKOUT given"}
    del record["times_faster"]  # it would compare with a matrix product
    print(json.dumps(summary, indent=2))
    keep(record | summary, options.out)


def summarized(records: dict[str, Any], images: int) -> dict[str, Any]:
    """Summarise by clock: images per second, our speed-up, and our share of a product's arithmetic."""
    medians = {name: record["median_s"] for name, record in records.items() if "median_s" in record}
    found = {name: records[name]["figures"][-1] for name in medians}
    trained = [name for name in medians if not name.startswith("product")]
    summary: dict[str, Any] = {"images_per_second": {}, "times_faster": {}, "share_of_product": {}}
    for name in trained:
        summary["images_per_second"][name] = by_clock(lambda clock, of=name: images / medians[of][clock])
    for name in (name for name in trained if name.startswith("ours")):
        summary["times_faster"][name] = {
            other: by_clock(lambda clock, of=name, to=other: medians[to][clock] / medians[of][clock])
            for other in trained
            if not other.startswith("ours")
        }
        product = f"product, {found[name]['precision']}"
        summary["share_of_product"][name] = by_clock(
            lambda clock, of=name, to=product: (
                found[of]["flops"] / medians[of][clock] / (found[to]["flops"] / medians[to][clock])
            )
        )
    return summary


def by_clock(figure: Callable[[str], float]) -> dict[str, float]:
    return {clock: round(figure(clock), 2) for clock in CLOCKS}


def figures(result: dict[str, Any], *_: Any) -> dict[str, Any]:
    return result


def versions(checkout: Path | None) -> dict[str, str]:
    """Return the versions of the compared libraries."""
    found = {}
    for name in ("lightly", "lightning", "timm", "torchvision"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if checkout:
        ask = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
        answer = subprocess.run(ask, capture_output=True, text=True, check=False)
        found["solo-learn"] = answer.stdout.strip() or "unknown"
    return found


if __name__ == "__main__":
    main()

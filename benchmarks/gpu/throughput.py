"""Measure images per second of our SimCLR step at several batch sizes, and the time of its kernels.

    python benchmarks/gpu/throughput.py [--batch 256 512 1024] [--device cuda] [--out FILE.json]

The script measures the step of a run, compiled and in bf16 if ``auto`` decides so for a long training. An
image counts once, although two views of it go through the network.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "speed"))

from sides import command, described, keep

LISTED = 25


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    import torch
    from simclr_sides import ours

    speeds: dict[str, Any] = {}
    kernels: dict[str, float] = {}
    for batch in options.batch:
        work = ours(options.precision, "cifar", batch, options.steps, options.device)
        work()
        seconds = [measured(work) for _ in range(5)]
        told = work()
        speeds[str(batch)] = {
            "images_per_second": round(batch * options.steps / sorted(seconds)[2]),
            "tflop_per_second": round(told["flops"] / sorted(seconds)[2] / 1e12, 1),
            "why": told["why"],
        }
        print(batch, speeds[str(batch)], flush=True)
        with torch.profiler.profile() as profile:
            work()
        kernels = own_times(profile, options.device)
        torch._dynamo.reset()
    total = sum(kernels.values())
    shares = {name[:90]: round(value / total, 4) for name, value in kernels.items()}
    print(f"\nbatch {options.batch[-1]}: {total / 1e6:.3f} s in kernels, of {min(seconds):.3f} s")
    print("| kernel | share |\n|---|---|")
    print("".join(f"| {name} | {share:.1%} |\n" for name, share in list(shares.items())[:LISTED]))
    record = {"device": options.device, "speeds": speeds, "kernels": dict(list(shares.items())[:LISTED])}
    keep(described() | record, options.out)


def measured(work: Any) -> float:
    """Measure the seconds of a piece of work, which ends when it reads a loss."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def own_times(profile: Any, device: str) -> dict[str, float]:
    """Return the microseconds of each kernel itself, the longest first."""
    kind = "cpu" if device == "cpu" else "device"
    found = {event.key: getattr(event, f"self_{kind}_time_total") for event in profile.key_averages()}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


if __name__ == "__main__":
    main()

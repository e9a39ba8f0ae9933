"""Time and peak memory from features to clusters as the number of rows grows.

    python benchmarks/growth.py [--rows 2000 20000] [--width 128] [--out growth.json]

Rows are random and of unit length, the hardest case for an eigensolver. Each size runs in a process of its
own, so that peak memory is its own; what the process held before is reported beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path


def measure(n_rows: int, width: int, n_clusters: int) -> dict[str, float]:
    """Seconds by stage and memory in MiB, in this process."""
    import torch
    from torch.nn import functional as F

    from ebsc_core.coefficients import self_expressive_coefficients, symmetrised
    from ebsc_core.config import RefineOptions
    from ebsc_core.progress import Progress
    from ebsc_core.registry import Kind, Registry
    from ebsc_core.training.refine import refine

    registry = Registry()
    energy = registry.find(Kind.COEFFICIENTS, "energy")
    spectral = registry.find(Kind.CLUSTERER, "spectral")
    model = energy.factory(energy.options_class(), width)
    clusterer = spectral.factory(spectral.options_class(), n_clusters, 0)
    rows = F.normalize(torch.randn(n_rows, width, generator=torch.Generator().manual_seed(0)), dim=1)
    figures = {"rows": n_rows, "memory_before_mib": _peak_mib()}
    clock = _Clock(figures)
    refine(model, rows, RefineOptions(steps=50), 0, Progress())
    model.eval()
    clock.lap("refine_50_steps_s")
    coefficients = self_expressive_coefficients(model, rows, 10)
    clock.lap("coefficients_s")
    graph = symmetrised(coefficients)
    clock.lap("affinity_s")
    clusterer.fit_predict(graph)
    clock.lap("clusters_s")
    parts = ("coefficients_s", "affinity_s", "clusters_s")
    return figures | {"total_s": sum(figures[part] for part in parts), "peak_mib": _peak_mib()}


class _Clock:
    def __init__(self, figures: dict[str, float]) -> None:
        self.figures, self.last = figures, time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.figures[name], self.last = round(now - self.last, 3), now


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--clusters", type=int, default=10)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.width, options.clusters)))
        return
    results = []
    for n_rows in options.rows:
        command = [sys.executable, __file__, "--one", str(n_rows), "--width", str(options.width)]
        command += ["--clusters", str(options.clusters)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        results.append(json.loads(done.stdout))
        print(json.dumps(results[-1]))
    first, last = results[0], results[-1]
    ratios = {
        "rows": last["rows"] / first["rows"],
        "total_s": last["total_s"] / first["total_s"],
        "added_memory": (last["peak_mib"] - last["memory_before_mib"])
        / (first["peak_mib"] - first["memory_before_mib"]),
    }
    print("last / first:", json.dumps({name: round(value, 2) for name, value in ratios.items()}))
    if options.out:
        machine = {"platform": platform.platform(), "cpus": os.cpu_count()}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        record = {"machine": machine, "results": results, "last_over_first": ratios}
        options.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

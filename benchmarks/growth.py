"""Time and peak memory from features to clusters as the number of rows grows.

    python benchmarks/growth.py [--rows 2000 20000] [--width 128] [--out growth.json]

Rows are random and of unit length, the hardest case for an eigensolver. Each size runs in a process of its
own, so that peak memory is its own; what the process held before is reported beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from measuring import T, command, described, keep, timed


def measure(n_rows: int, width: int, n_clusters: int) -> dict[str, Any]:
    """Seconds by stage and memory in MiB, in this process."""
    import torch
    from torch.nn import functional as F

    from ebsc_core.coefficients import self_expressive_coefficients, symmetrised
    from ebsc_core.config import RefineOptions
    from ebsc_core.progress import Progress
    from ebsc_core.registry import Kind, Registry
    from ebsc_core.runs import peak_memory_mib
    from ebsc_core.training.refine import refine

    registry = Registry()
    energy = registry.find(Kind.COEFFICIENTS, "energy")
    spectral = registry.find(Kind.CLUSTERER, "spectral")
    model = energy.factory(energy.options_class(), width)
    clusterer = spectral.factory(spectral.options_class(), n_clusters, 0)
    rows = F.normalize(torch.randn(n_rows, width, generator=torch.Generator().manual_seed(0)), dim=1)
    figures: dict[str, Any] = {"rows": n_rows, "memory_before_mib": peak_memory_mib()}

    def stage(name: str, work: Callable[[], T]) -> T:
        result, seconds = timed(work)
        figures[name] = round(seconds["wall"], 3)
        return result

    stage("refine_50_steps_s", lambda: refine(model, rows, RefineOptions(steps=50), 0, Progress()))
    coefficients = stage("coefficients_s", lambda: self_expressive_coefficients(model.eval(), rows, 10))
    graph = stage("affinity_s", lambda: symmetrised(coefficients))
    stage("clusters_s", lambda: clusterer.fit_predict(graph))
    total = sum(figures[name] for name in ("coefficients_s", "affinity_s", "clusters_s"))
    return figures | {"total_s": total, "peak_mib": peak_memory_mib()}


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--clusters", type=int, default=10)
    options = parser.parse_args()
    results = []
    for n_rows in options.rows:
        with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
            results.append(fresh.submit(measure, n_rows, options.width, options.clusters).result())
        print(json.dumps(results[-1]), flush=True)
    first, last = results[0], results[-1]
    ratios = {name: last[name] / first[name] for name in ("rows", "total_s")}
    added = [figures["peak_mib"] - figures["memory_before_mib"] for figures in (first, last)]
    ratios["added_memory"] = added[1] / added[0]
    print("last / first:", json.dumps({name: round(value, 2) for name, value in ratios.items()}))
    # Described only now: that imports torch, and on Linux a process starts with the peak of its parent.
    keep(described() | {"results": results, "last_over_first": ratios}, options.out)


if __name__ == "__main__":
    main()

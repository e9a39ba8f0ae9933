"""Compare searches for the largest inner products between all rows: seconds, recall and memory by N.

    python benchmarks/speed/top_k.py [--rows 10000 100000] [--sides cells exact faiss-ivf faiss-flat]

Rows are those of growth.py: they lie near ten random subspaces of dimension six in 128 dimensions. The time
includes building an index. ``exact`` and ``cells`` are our searches. ``faiss-ivf`` is the search of
``search.method=faiss``, with as many cells as ours; ``faiss-flat`` is that library's exact search (both
need the package faiss-cpu). Recall is measured on 1,000 rows; ``same`` is the share of results near the
row's own subspace.

The exponent is the slope of log time over log rows from 100,000 rows on.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from math import log
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from growth import write
from sides import CLOCKS, Side, command, compare, keep

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SIDES = ("cells", "exact", "faiss-ivf", "faiss-flat")
JUDGED = 1000


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--top-k", type=int, default=10)
    parser.add_argument("--cell-rows", type=int, help="by default as in a run")
    parser.add_argument("--probes", type=int, help="by default as in a run")
    parser.add_argument("--noise", type=float, default=0.05)
    parser.add_argument("--width", type=int, default=128, help="columns of the rows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=float, default=600, help="the longest time of a side, in seconds")
    parser.add_argument("--since", type=int, default=100_000, help="least number of rows for the exponent")
    options = parser.parse_args()
    given = {name: getattr(options, name) for name in ("cell_rows", "probes")}
    given = {name: value for name, value in given.items() if value is not None}
    records = {}
    with tempfile.TemporaryDirectory() as folder:
        for n in options.rows:
            path = Path(folder) / f"{n}.h5"
            with ProcessPoolExecutor(1, get_context("spawn")) as other:
                other.submit(write, path, n, options.noise, options.width).result()
            arguments = (path, options.top_k, given)
            sides = [Side(name, start, (*arguments, name), judge) for name in options.sides]
            records[n] = compare(sides, options.rounds, options.threads, options.limit)
            print(json.dumps({"rows": n} | records[n]["sides"]), flush=True)
            path.unlink()
    names = ("top_k", "noise", "width", "rounds", "threads")
    settings = {name: getattr(options, name) for name in names} | given
    keep({"settings": settings, "exponents": exponents(records, options.since), "rows": records}, options.out)


def start(path: Path, top_k: int, given: dict[str, int], side: str) -> Callable[[], tuple[Tensor, Tensor]]:
    """Return the work of a side, which computes scores and positions ``(N, k)``."""
    import torch

    from ebsc_core.clustering.coefficients import Dictionary
    from ebsc_core.config.schema import SearchOptions
    from ebsc_plugins.coefficients.knn import CosineNeighbors, KnnOptions

    rows, _ = load(path)
    if side == "faiss-flat":
        return lambda: flat(rows, top_k)
    methods = {"cells": "cells", "exact": "exact", "faiss-ivf": "faiss"}
    if side == "faiss-ivf":
        import faiss  # noqa: F401  (fail now if it is missing)
    search = SearchOptions(method=methods[side], **given)
    model = CosineNeighbors(KnnOptions(weighted=True), rows.shape[1])

    def work() -> tuple[Tensor, Tensor]:
        dictionary = Dictionary(model, rows, search=search)
        found = dictionary.express(rows, top_k, torch.arange(len(rows)))
        return found.values, found.indices

    return work


def flat(rows: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Search all pairs with faiss."""
    import faiss
    import torch

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows.numpy())
    values, indices = map(torch.from_numpy, index.search(rows.numpy(), top_k + 1))
    values[indices == torch.arange(len(rows)).unsqueeze(1)] = -torch.inf
    values, best = values.topk(top_k, dim=1)
    return values, indices.gather(1, best)


def judge(found: tuple[Tensor, Tensor], path: Path, *_: Any) -> dict[str, float]:
    """Measure recall on some rows, and the share of results near the row's own subspace."""
    import torch

    rows, labels = load(path)
    scores, indices = found
    some = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))[:JUDGED]
    hits = 0
    for part in some.split(50):
        true = rows[part] @ rows.T
        true[torch.arange(len(part)), part] = -torch.inf
        hits += int((scores[part] >= true.topk(scores.shape[1], dim=1).values[:, -1:] - 1e-5).sum())
    same = (labels[indices.numpy()] == labels[:, None]).mean()
    return {"recall": round(hits / len(some) / scores.shape[1], 4), "same": round(float(same), 5)}


@lru_cache(1)
def load(path: Path) -> tuple[Tensor, np.ndarray]:
    import h5py

    from ebsc_core.data.features.rows import StoredRows

    with h5py.File(path) as file:
        labels = file["labels"][:]
    return StoredRows(path, "features").held(), labels


def exponents(records: dict[int, dict[str, Any]], since: int) -> dict[str, dict[str, float]]:
    """Fit the slope of log time over log rows, by side and clock, if there are two sizes or more."""
    from numpy import polyfit

    found = {}
    for side in {side: None for record in records.values() for side in record["sides"]}:
        medians = {n: record["sides"][side].get("median_s") for n, record in records.items() if n >= since}
        times = {n: median for n, median in medians.items() if median}
        if len(times) > 1:
            logs = [log(n) for n in times]
            slopes = {c: polyfit(logs, [log(times[n][c]) for n in times], 1)[0] for c in CLOCKS}
            found[side] = {clock: round(float(slope), 3) for clock, slope in slopes.items()}
    return found


if __name__ == "__main__":
    main()

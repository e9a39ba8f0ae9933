"""Measure time, peak memory and accuracy, from stored features to clusters, for growing numbers of rows.

    python benchmarks/speed/growth.py [--rows 10000 30000 100000 200000 400000 1000000] [--ways all sample]

The script writes rows to HDF5 block by block. They lie near ten random subspaces of dimension six in 128
(``--width``) dimensions; the noise is 5 % of their length. The measured time begins with that file and ends
with a cluster for every row, as in a run: whitening, coefficients of the energy network, affinity,
spectral clustering. ``all`` clusters all rows. ``sample`` clusters a seeded sample of
``--dictionary`` rows and assigns the others to its clusters. ``--features`` replaces the synthetic rows by
those of an .npz file (``x`` and ``y``).

Each size runs in its own process, so that its peak memory is its own. The exponent is the slope of log time
over log rows from 100,000 rows on.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from math import log
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from sides import CLOCKS, command, described, keep, timed

from ebsc_core.utils.progress import Stages

CLUSTERS, DIMENSION = 10, 6
ROWS = (10_000, 30_000, 100_000, 200_000, 400_000, 1_000_000)


class BothClocks(Stages):
    """Measure the seconds of each stage by the wall clock and, as ``cpu``, of this process."""

    def __init__(self) -> None:
        super().__init__()
        self.cpu: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.process_time()
        with super().__call__(name):
            yield
        self.cpu[name] = time.process_time() - start


def write(path: Path, n: int, noise: float, width: int) -> None:
    """Write synthetic features and labels as a run stores them; the first rows are the same for every N."""
    import h5py
    import numpy as np
    import torch

    from ebsc_core.data.features.rows import BLOCK_ROWS
    from ebsc_core.data.features.store import FeatureTable, FeatureWriter

    bases = np.linalg.qr(np.random.default_rng(0).normal(size=(CLUSTERS, width, DIMENSION))).Q
    labels = []
    with FeatureWriter(path, "growth", {"rows": n, "noise": noise}) as writer:
        for start in range(0, n, BLOCK_ROWS):
            rng = np.random.default_rng(start + 1)
            size = min(BLOCK_ROWS, n - start)
            labels.append(rng.integers(CLUSTERS, size=BLOCK_ROWS)[:size])
            inside = rng.normal(size=(BLOCK_ROWS, DIMENSION))[:size]
            inside /= np.linalg.norm(inside, axis=1, keepdims=True)
            rows = np.einsum("nd,nwd->nw", inside, bases[labels[-1]])
            rows += noise / width**0.5 * rng.normal(size=(BLOCK_ROWS, width))[:size]
            writer.append(FeatureTable(torch.from_numpy(rows.astype(np.float32)), None))
    with h5py.File(path, "a") as file:
        file["labels"] = np.concatenate(labels)


def copy(path: Path, n: int, features: Path) -> None:
    """Write rows ``x`` and labels ``y`` of an .npz file in the same way: ``n`` rows in a seeded order."""
    import h5py
    import numpy as np
    import torch

    from ebsc_core.data.features.store import FeatureTable, FeatureWriter

    with np.load(features) as stored:
        chosen = np.random.default_rng(0).permutation(len(stored["y"]))[:n]
        rows, labels = stored["x"][chosen], stored["y"][chosen]
    with FeatureWriter(path, "growth", {"rows": n, "features": features.name}) as writer:
        writer.append(FeatureTable(torch.from_numpy(rows.astype(np.float32)), None))
    with h5py.File(path, "a") as file:
        file["labels"] = labels


def measure(path: Path, dictionary_size: int | None, kept: Path, home: str) -> dict[str, Any]:
    """Measure seconds by stage, peak memory and scores in this process; write the clusters to ``kept``."""
    import h5py
    import numpy as np
    import torch

    from ebsc_core.clustering.cluster import Method, cluster_rows
    from ebsc_core.clustering.coefficients import auto_top_k
    from ebsc_core.clustering.metrics import scores
    from ebsc_core.config.schema import AffinityOptions, RefineOptions, SearchOptions
    from ebsc_core.data.features.forms import form_width
    from ebsc_core.data.features.rows import StoredRows
    from ebsc_core.plugins.registry import Kind, Registry
    from ebsc_core.utils.device import device_memory, prepare
    from ebsc_core.utils.progress import Progress
    from ebsc_core.utils.system import peak_memory_mib

    registry = Registry()
    energy = registry.find(Kind.COEFFICIENTS, "energy")
    spectral = registry.find(Kind.CLUSTERER, "spectral")
    torch.manual_seed(0)
    device = torch.device(home)
    prepare(device)
    if device.type == "cuda":
        torch.zeros(1, device=device)  # the context does not belong to the measured work
    figures: dict[str, Any] = {"memory_before_mib": peak_memory_mib()}
    rows = StoredRows(path, "features")
    model = energy.factory(energy.options_class(), form_width(rows.width, "neighbors")).to(device)
    method = Method(
        model=model,
        clusterer=spectral.factory(spectral.options_class(), CLUSTERS, 0),
        top_k=auto_top_k(dictionary_size or len(rows), CLUSTERS),
        whiten="neighbors",
        refine=RefineOptions(steps=0),
        search=SearchOptions(),
        affinity=AffinityOptions(**model.graph()),
        dictionary_size=dictionary_size,
        seed=0,
        device=device,
    )
    stages = BothClocks()
    with device_memory(device) as held:
        found, seconds = timed(lambda: cluster_rows(rows, method, stages, Progress()))
        figures |= {"device_peak_mib": held()}
    figures |= {"rows": len(rows), "dictionary_size": dictionary_size, "seconds": seconds}
    figures |= {"stages": {"wall": stages.seconds, "cpu": stages.cpu}}
    figures |= {"peak_mib": peak_memory_mib(), "dictionary_agreement": found.agreement}
    np.save(kept, found.labels)
    with h5py.File(path) as file:
        return figures | {"scores": scores(file["labels"][:], found.labels)}


def agreement(one: Path, other: Path) -> float:
    """Compute the adjusted Rand index of two ways to cluster the same rows."""
    import numpy as np
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(np.load(one), np.load(other)))


def exponents(results: list[dict[str, Any]], since: int) -> dict[str, float] | None:
    """Fit the slope of log time over log rows from ``since`` rows on."""
    points = [result for result in results if result["rows"] >= since]
    if len(points) < 2:
        return None
    return {name: slope([(p["rows"], p["seconds"][name]) for p in points]) for name in CLOCKS}


def slope(points: list[tuple[int, float]]) -> float:
    """Fit the slope by least squares."""
    x, y = [log(n) for n, _ in points], [log(seconds) for _, seconds in points]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    products = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return products / sum((a - mean_x) ** 2 for a in x)


def alone(function: Any, *arguments: Any) -> Any:
    """Call ``function`` in its own process, and return its result."""
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        return fresh.submit(function, *arguments).result()


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--ways", nargs="+", choices=("all", "sample"), default=["all"])
    parser.add_argument("--dictionary", type=int, default=20_000, help="rows of the sample")
    parser.add_argument("--features", type=Path, help="an .npz file of rows in ten classes")
    parser.add_argument("--noise", type=float, default=0.05, help="length of the noise, in lengths of a row")
    parser.add_argument("--width", type=int, default=128, help="columns of the synthetic rows")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--since", type=int, default=100_000, help="least number of rows for the exponent")
    options = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {way: [] for way in options.ways}
    agreements: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for n in options.rows:
            path = Path(folder) / "rows.h5"
            if options.features:
                alone(copy, path, n, options.features)
            else:
                alone(write, path, n, options.noise, options.width)
            kept = {}
            for way in options.ways:
                size = options.dictionary if way == "sample" else None
                if size and size >= n:
                    continue
                kept[way] = Path(folder) / f"{way}.npy"
                results[way].append(alone(measure, path, size, kept[way], options.device))
                print(way, json.dumps(results[way][-1]), flush=True)
            if len(kept) == 2:
                agreements[str(n)] = alone(agreement, *kept.values())
                print(f"agreement (ARI) of the two ways: {agreements[str(n)]:.4f}", flush=True)
    slopes = {way: exponents(found, options.since) for way, found in results.items()}
    print("exponents", json.dumps(slopes))
    # `described` imports torch, so it comes last: on Linux a process starts with the peak memory of its
    # parent.
    made_of = {"features": options.features.name} if options.features else {"noise": options.noise}
    made_of |= {"width": options.width, "device": options.device}
    record = made_of | {"results": results, "agreements": agreements, "exponents": slopes}
    keep(described() | record, options.out)


if __name__ == "__main__":
    main()

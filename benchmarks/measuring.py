"""Share code between benchmark scripts: rows, clocks, and the record of a measurement.

The module imports torch and numpy late, because a script may first have to set their number of threads.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ebsc_core.utils.files import written_whole

if TYPE_CHECKING:
    import numpy as np
    import torch

T = TypeVar("T")


def command(doc: str) -> argparse.ArgumentParser:
    """Make the parser of a script, with the first line of its docstring and the option ``--out``."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--out", type=Path, help="a JSON file for the record")
    return parser


def unit_rows(features: Path, draw: Callable[[int], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Read rows of ``x`` from an .npz file, as float64 of unit length, and their labels in ``y``.

    ``draw`` gets the number of rows and returns the positions to use.
    """
    import numpy as np
    from sklearn.preprocessing import normalize

    try:
        with np.load(features) as stored:
            x, y = stored["x"], stored["y"]
        chosen = draw(len(x))
    except (OSError, KeyError, ValueError) as error:
        raise SystemExit(f"{features}: {error}") from None
    return normalize(x[chosen].astype(np.float64)), y[chosen]


def timed(work: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """Do the work; return its result, and its seconds by the wall clock and of this process (``cpu``)."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def ebsc(*words: object) -> float:
    """Measure the seconds of a whole command, which must succeed."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "ebsc_cli", *map(str, words), "--quiet"], check=True)
    return round(time.perf_counter() - began, 1)


def predicted_scores(table: Path) -> dict[str, Any]:
    """Return the number of images in a table of ``ebsc predict``, and the scores of their clusters."""
    import numpy as np

    from ebsc_core.clustering import metrics

    with table.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    labels = np.unique([line["label"] for line in lines], return_inverse=True)[1]
    clusters = np.array([int(line["cluster"]) for line in lines])
    return {"images": len(lines), "scores": metrics.scores(labels, clusters)}


def vote(fitted: Path, n_neighbors: int, held_out: Path | None = None) -> float:
    """Return the share of images that have the class of most of their nearest fitted images.

    It reads the classes, so it judges features and takes no part in clustering. Without held-out images, each
    fitted image asks all others. The files are those that a run writes as features.h5.
    """
    import numpy as np

    rows, labels = _rows_and_classes(fitted)
    queries, wanted = (rows, labels) if held_out is None else _rows_and_classes(held_out)
    right = 0
    for start in range(0, len(queries), 1000):
        cosines = queries[start : start + 1000] @ rows.T
        if held_out is None:
            block = np.arange(len(cosines))
            cosines[block, start + block] = -2.0
        votes = labels[cosines.topk(n_neighbors).indices.numpy()]
        elected = np.array([np.bincount(vote).argmax() for vote in votes])
        right += int((elected == wanted[start : start + 1000]).sum())
    return right / len(queries)


def _rows_and_classes(path: Path) -> tuple[torch.Tensor, np.ndarray]:
    """Read features, as rows of unit length, and classes."""
    import h5py
    import torch

    with h5py.File(path) as file:
        return torch.nn.functional.normalize(torch.from_numpy(file["features"][:]), dim=1), file["labels"][:]


def described() -> dict[str, Any]:
    """Describe the circumstances of a measurement: time, commit, versions and machine."""
    import torch

    from ebsc_core.benchmark import results
    from ebsc_core.utils.provenance import provenance

    made_with, machine = provenance(), results.machine()
    return {
        "created": made_with["created"],
        "commit": results.commit(),
        "machine": {
            "cpu": machine.pop("processor"),
            **machine,
            "threads": torch.get_num_threads(),
            "platform": made_with["platform"],
        },
        "versions": {"python": made_with["python"], **made_with["versions"]},
    }


def keep(record: dict[str, Any], out: Path | None) -> None:
    """Write the record if there is a path; the file appears whole or not at all."""
    if out is None:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(out) as temporary_path:
        temporary_path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

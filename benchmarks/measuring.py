"""What the scripts beside it share: their rows, their clocks, and the record of a measurement.

torch and numpy are imported late: a script may first have to set the number of threads they start with.
"""

from __future__ import annotations

import argparse
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

T = TypeVar("T")


def command(doc: str) -> argparse.ArgumentParser:
    """The parser of a script: the first line of its docstring, and ``--out``."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--out", type=Path, help="a JSON file for the record")
    return parser


def unit_rows(features: Path, draw: Callable[[int], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ``x`` in an .npz file, float64 and of unit length, and their labels in ``y``.

    ``draw`` says which, given how many there are.
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
    """What it returns, and its seconds by the clock on the wall (``wall``) and of this process (``cpu``)."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def ebsc(*words: object) -> float:
    """Seconds of a whole command, which must succeed."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "ebsc_cli", *map(str, words), "--quiet"], check=True)
    return round(time.perf_counter() - began, 1)


def described() -> dict[str, Any]:
    """What a record says of its circumstances: time, commit, versions and machine."""
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
    """Write the record, if there is a path to write it to; a file is there whole or not at all."""
    if out is None:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(out) as temporary_path:
        temporary_path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

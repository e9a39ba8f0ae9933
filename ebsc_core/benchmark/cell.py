"""One cell of a suite in a process of its own: ``python -m ebsc_core.benchmark.cell``.

A process a cell: its peak memory is its own, its threads are as many as it was given, and whatever
kills it kills nothing else. The first line of standard input says what to do; when that pipe closes, the
benchmark is gone and so is the cell.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from ebsc_core.utils.files import written_whole

FORMAT = "ebsc-cell-1"


def main() -> None:
    """Run the cell and write its record, which appears only when complete."""
    task = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    record = Path(task["record"])
    began = time.perf_counter()
    outcome = _outcome(task["config"], record)
    outcome |= {"format": FORMAT, "wall_seconds": round(time.perf_counter() - began, 2)}
    with written_whole(record) as temporary_path:
        temporary_path.write_text(json.dumps(outcome, indent=1), encoding="utf-8")


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def _outcome(config: dict[str, Any], record: Path) -> dict[str, Any]:
    from ebsc_core.config.schema import RunConfig
    from ebsc_core.plugins.registry import Registry
    from ebsc_core.runs.run import run
    from ebsc_core.utils.errors import EbscError
    from ebsc_core.utils.progress import Progress

    try:
        with tempfile.TemporaryDirectory(prefix=".", suffix=".work", dir=record.parent) as folder:
            chosen = RunConfig.model_validate(config | {"out": f"{folder}/run"})
            result = run(chosen, Registry(), Progress())
            assert result  # a cell is one process
            return {"metrics": result.metrics, "threads": _threads()}
    except EbscError as error:
        return {"failed": str(error)}
    except Exception as error:  # a part of a stranger's: the table says why, the log says where
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {error}"}


def _threads() -> int:
    import torch

    return torch.get_num_threads()


if __name__ == "__main__":
    main()

"""Run one cell of a suite in its own process: ``python -m ebsc_core.benchmark.cell``.

A process for each cell has its own peak memory and the number of threads that it is given, and if it is
killed, nothing else ends. The first line of standard input describes the task. When that pipe closes, the
benchmark has ended, and the cell ends as well.
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
from ebsc_core.utils.signals import listen

FORMAT = "ebsc-cell-1"


def main() -> None:
    """Run the cell and write its record; the file appears only when complete."""
    listen()
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
    from ebsc_core.benchmark.resolved import recorded
    from ebsc_core.benchmark.results import machine, plain
    from ebsc_core.config.schema import RunConfig
    from ebsc_core.config.toml import read_toml
    from ebsc_core.plugins.registry import Registry
    from ebsc_core.runs.run import run
    from ebsc_core.runs.store.directory import CONFIG
    from ebsc_core.utils.errors import EbscError
    from ebsc_core.utils.progress import Progress
    from ebsc_core.utils.provenance import provenance

    try:
        with tempfile.TemporaryDirectory(prefix=".", suffix=".work", dir=record.parent) as folder:
            chosen = RunConfig.model_validate(config | {"out": f"{folder}/run"})
            result = run(chosen, Registry(), Progress())
            assert result  # a cell is one process
            created = provenance()["created"]
            resolved = recorded(read_toml(result.directory / CONFIG), result.metrics)
            return {
                "metrics": result.metrics,
                "resolved": plain(resolved),
                "threads": _threads(),
                "machine": machine(),
                "created": created,
            }
    except EbscError as error:
        return {"failed": str(error)}
    except Exception as error:  # third-party code: the table says why, the log says where
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {error}"}


def _threads() -> int:
    import torch

    return torch.get_num_threads()


if __name__ == "__main__":
    main()

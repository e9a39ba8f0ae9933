"""Runs the cells of a suite, as many at once as asked for, and keeps every one that finishes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from ebsc_core.benchmark.cell import FORMAT
from ebsc_core.benchmark.results import Results, set_aside, source_digest, write
from ebsc_core.benchmark.suite import Cell, Suite
from ebsc_core.benchmark.table import html, markdown
from ebsc_core.errors import Interrupted, RunDirectoryError
from ebsc_core.features import digest
from ebsc_core.progress import Progress, clock
from ebsc_core.registry import Registry

POLL_SECONDS = 0.05


def run_suite(
    suite: Suite, out: Path, jobs: int, cache: str | None, registry: Registry, progress: Progress
) -> Results:
    """Run what is not finished of a suite, then write ``results.json``, ``table.md`` and ``table.html``.

    Results found in ``out`` that are another suite's, or another version's, are moved into a folder beside.

    Raises
    ------
    ConfigError
        If a cell cannot be what the suite says; nothing has run then.
    Interrupted
        If the user stops it; finished cells are kept.
    RunDirectoryError
        If ``out`` cannot be written.
    """
    suite.check(registry)
    runner = Runner(suite, out, source_digest(registry), jobs, cache, progress)
    try:
        runner.run()
    except KeyboardInterrupt:
        raise Interrupted("interrupted; finished cells are kept, the same command goes on") from None
    results = Results(
        suite,
        runner.source,
        [(cell, runner.records[runner.key(cell)]) for cell in suite.cells()],
        runner.thread_settings(),
    )
    if moved := set_aside(out, results):
        progress.warn(moved)
    write(out, results, {"table.md": markdown, "table.html": html})
    return results


@dataclass
class Runner:
    """The cells of a suite and the folder their records are kept in.

    A cell's record is named by a digest of its whole configuration, of the data file's size and date, and of
    the code that runs it; so a finished cell is found again, and only by those who would run the same.
    """

    suite: Suite
    out: Path
    source: str
    """Digest of the code, see :func:`ebsc_core.benchmark.results.source_digest`."""
    jobs: int
    cache: str | None
    progress: Progress
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each cell came to, by its key."""

    @property
    def folder(self) -> Path:
        return self.out / "cells"

    def key(self, cell: Cell) -> str:
        """The name of a cell's record."""
        config = cell.config.model_dump(mode="json", exclude={"out", "cache"})
        return digest({"config": config, "data": _file_stamp(cell.config.data.name), "source": self.source})

    def run(self) -> None:
        """Run what is not finished yet; what fails is recorded and does not stop the others."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunDirectoryError(
                f"cannot create {self.folder}: {error.strerror}; choose another --out"
            ) from None
        with _only_one(self.out):
            for leftover in self.folder.glob(".*"):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            self._run()

    def _run(self) -> None:
        cells = {self.key(cell): cell for cell in self.suite.cells()}
        self.records = {key: record for key in cells if (record := self._finished(key))}
        waiting = {key: cell for key, cell in cells.items() if key not in self.records}
        if self.records:
            self.progress.note(f"{len(self.records)} of {len(cells)} cells are finished already")
        running: dict[str, subprocess.Popen[str]] = {}
        ready: set[str] = set()
        """Features that are in the cache now."""
        try:
            while waiting or running:
                for key in self._startable(waiting, [cells[key] for key in running], ready, len(running)):
                    running[key] = self._start(key, waiting.pop(key))
                for key in [key for key, process in running.items() if process.poll() is not None]:
                    self.records[key] = self._collect(key, running.pop(key).returncode)
                    ready.add(cells[key].features_key())
                    left = [cells[other] for other in (*waiting, *running)]
                    self._tell(cells[key], self.records[key], left, cells)
                time.sleep(POLL_SECONDS)
        finally:
            for process in running.values():
                process.kill()
                process.wait()

    def _finished(self, key: str) -> dict[str, Any] | None:
        """The record of a cell that ran to its end; a failed one gets another chance."""
        try:
            record = json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        whole = isinstance(record, dict) and record.get("format") == FORMAT and "metrics" in record
        return record if whole else None

    def _startable(
        self, waiting: dict[str, Cell], running: list[Cell], ready: set[str], n_running: int
    ) -> list[str]:
        """Which cells to start now: none whose features another one is just making."""
        making = {cell.features_key() for cell in running} - ready
        chosen: list[str] = []
        for key, cell in waiting.items():
            if n_running + len(chosen) >= self.jobs:
                break
            features = cell.features_key()
            if features not in making:
                chosen.append(key)
                making |= {features} - ready
        return chosen

    def _start(self, key: str, cell: Cell) -> subprocess.Popen[str]:
        config = cell.config.model_dump(mode="json", exclude_unset=True) | {"cache": self.cache}
        with (self.folder / f"{key}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ebsc_core.benchmark.cell"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                env=os.environ | self.thread_settings(),
            )
        assert process.stdin
        task = {"config": config, "record": str((self.folder / f"{key}.json").absolute())}
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        return process

    def thread_settings(self) -> dict[str, str]:
        """The machine's threads, divided among the jobs: with all each, they stall one another."""
        if self.jobs == 1:
            return {}
        return {"OMP_NUM_THREADS": str(max(1, _n_cpus() // self.jobs))}

    def _collect(self, key: str, status: int) -> dict[str, Any]:
        path, log = self.folder / f"{key}.json", self.folder / f"{key}.log"
        if status == 0 and path.exists():
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        else:
            why = (
                f"killed by signal {-status}, perhaps for want of memory" if status < 0 else f"exit {status}"
            )
            record = {"failed": f"the process ended ({why}); see {log}"}
        if "failed" not in record:
            log.unlink()
        return record

    def _tell(self, cell: Cell, record: dict[str, Any], left: list[Cell], cells: dict[str, Cell]) -> None:
        done, total = len(self.records), len(cells)
        if "failed" in record:
            self.progress.warn(f"[{done}/{total}] {cell.name} failed: {record['failed']}")
        else:
            scores = record["metrics"]["scores"] or {}
            figures = " ".join(f"{name.upper()} {100 * value:.1f}" for name, value in scores.items())
            rest = f", about {clock(self._estimate(left, cells))} left" if left else ""
            self.progress.note(
                f"[{done}/{total}] {cell.name}: {figures}, {clock(record['wall_seconds'])}{rest}"
            )

    def _estimate(self, left: list[Cell], cells: dict[str, Cell]) -> float:
        """Seconds the remaining cells will take, judged by the finished ones most like them."""
        known = [
            (cells[key], record["wall_seconds"])
            for key, record in self.records.items()
            if "failed" not in record
        ]

        def expected(cell: Cell) -> float:
            for alike in ("row", "column"):
                times = [
                    t
                    for c, t in known
                    if c.column == cell.column and getattr(c, alike) == getattr(cell, alike)
                ]
                if times:
                    return mean(times)
            return mean(t for _, t in known)

        return sum(expected(cell) for cell in left) / self.jobs if known else 0.0


def _file_stamp(name: str | None) -> list[int]:
    """Size and date of a data file, empty for a data set known by name."""
    path = Path(name or "")
    if not name or not path.is_file():
        return []
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _n_cpus() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@contextmanager
def _only_one(out: Path) -> Iterator[None]:
    """Two benchmarks writing one folder would run every cell twice."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunDirectoryError(
                f"another benchmark is writing {out}; wait for it or choose another --out"
            ) from None
        yield

"""Run the cells of a suite, several at once if requested, and keep every finished one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from pathlib import Path
from statistics import mean
from typing import Any

from ebsc_core.benchmark.cell import FORMAT
from ebsc_core.benchmark.results import Results, set_aside, source_digest, write
from ebsc_core.benchmark.suite import Cell, Suite
from ebsc_core.benchmark.table import html, markdown
from ebsc_core.config.loading import load_config
from ebsc_core.plugins.registry import Registry
from ebsc_core.runs.store.listing import SCORES
from ebsc_core.utils.errors import Interrupted, RunDirectoryError
from ebsc_core.utils.files import locked
from ebsc_core.utils.hashing import digest
from ebsc_core.utils.progress import Progress, clock
from ebsc_core.utils.system import processors

POLL_SECONDS = 0.05
# A folder of a benchmark has one of these, also if only its table was kept.
OWN = {".lock", "cells", "results.json"}
# If no cell finishes for this long, the user is told that they are still running.
PATIENCE_SECONDS = 60.0
# The time that a stopped cell may take to save a checkpoint.
GRACE_SECONDS = 60.0
NOT_YET = "not finished when the time was up; the same command goes on"
# The number of bytes up to which a data file is identified by its content: reading them takes about a
# second.
READ = 1 << 30


def run_suite(
    suite: Suite,
    out: Path,
    jobs: int,
    cache: str | None,
    registry: Registry,
    progress: Progress,
    minutes: float | None = None,
) -> Results:
    """Run the unfinished cells of a suite, then write ``results.json``, ``table.md`` and ``table.html``.

    After ``minutes`` minutes the cells are stopped, and the table shows what has finished by then. If
    ``out`` holds results of another suite or another version, they are moved into a folder beside the new
    ones.

    Raises
    ------
    ConfigError
        If a cell or the cache is invalid. In this case nothing has run.
    Interrupted
        If the user stops the benchmark. Finished cells are kept.
    RunDirectoryError
        If ``out`` cannot be written.
    """
    try:
        suite.check(registry)
        load_config(flags={"cache": cache})  # each cell would refuse what is no name of a folder
        for note in suite.notes():
            progress.warn(note)
        deadline = inf if minutes is None else time.monotonic() + 60 * minutes
        runner = Runner(suite, out, source_digest(registry), jobs, cache, progress, deadline)
        runner.run()
        records = [(cell, runner.records[key]) for cell, key in zip(runner.cells, runner.keys, strict=True)]
        results = Results(suite, runner.source, records)
        if moved := set_aside(out, results):
            progress.warn(moved)
        write(out, results, {"table.md": markdown, "table.html": html})
    except KeyboardInterrupt:
        raise Interrupted("interrupted; finished cells are kept, the same command goes on") from None
    except OSError as error:
        raise RunDirectoryError(
            f"cannot write {out}: {error.strerror or error}; choose another `out`"
        ) from None
    return results


@dataclass
class Runner:
    """Hold the cells of a suite and the folder of their records.

    The name of a cell's record is a digest of its whole configuration, of the state of its data, and of the
    code that runs it. So a finished cell is found again, but only for exactly the same run.
    """

    suite: Suite
    out: Path
    source: str
    """The digest of the code, see :func:`ebsc_core.benchmark.results.source_digest`."""
    jobs: int
    cache: str | None
    progress: Progress
    deadline: float = inf
    """The time, by the monotonic clock, when cells are stopped."""
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The record of each cell, by its key."""
    heard: float = field(default_factory=time.monotonic)
    """The time of the last message to the user."""

    @property
    def folder(self) -> Path:
        return self.out / "cells"

    @cached_property
    def cells(self) -> list[Cell]:
        return self.suite.cells()

    @cached_property
    def keys(self) -> list[str]:
        """The names of the cells' records; two cells with the same run share one."""
        stamps = {name: _stamp(name) for cell in self.cells for name in _sources(cell)}
        return [
            digest(
                {
                    "config": cell.config.model_dump(mode="json", exclude={"out", "cache"}),
                    "given": cell.given,
                    "data": [stamps[name] for name in _sources(cell)],
                    "source": self.source,
                }
            )
            for cell in self.cells
        ]

    def run(self) -> None:
        """Run the unfinished cells; a failure is recorded and does not stop the others."""
        try:
            there = set(os.listdir(self.out)) if self.out.is_dir() else set()
            if there and not there & OWN:  # a table.md among them would be written over
                raise RunDirectoryError(f"{self.out} already holds files; choose another `out`")
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunDirectoryError(
                f"cannot create {self.folder}: {error.strerror}; choose another `out`"
            ) from None
        with _only_one(self.out):
            self._clean()
            try:
                self._run()
            finally:
                self._clean()

    def _clean(self) -> None:
        """Remove what killed cells have left."""
        for folder in self.folder.glob(".*.work"):
            shutil.rmtree(folder, ignore_errors=True)
        for file in self.folder.glob(".*.json.*"):
            file.unlink()

    def _run(self) -> None:
        cells = dict(zip(self.keys, self.cells, strict=True))
        self.records = {key: record for key in cells if (record := self._finished(key))}
        waiting = {key: cell for key, cell in cells.items() if key not in self.records}
        if self.records:
            self.progress.note(f"{len(self.records)} of {len(cells)} cells are finished already")
        running: dict[str, subprocess.Popen[str]] = {}
        ready: set[str] = set()
        """The features that are in the cache now."""
        try:
            while (waiting or running) and time.monotonic() < self.deadline:
                for key in self._startable(waiting, [cells[key] for key in running], ready):
                    running[key] = self._start(key, waiting.pop(key))
                for key in [key for key, process in running.items() if process.poll() is not None]:
                    self.records[key] = self._collect(key, running.pop(key).returncode)
                    if "failed" not in self.records[key]:
                        ready.add(cells[key].features_key)
                    left = [cells[other] for other in (*waiting, *running)]
                    self._tell(cells[key], self.records[key], left, cells)
                self._reassure([cells[key] for key in running])
                time.sleep(POLL_SECONDS)
        finally:
            _stop(list(running.values()))
            for key in cells.keys() - self.records.keys():
                (self.folder / f"{key}.log").unlink(missing_ok=True)
        self.records = {key: {"failed": NOT_YET} for key in cells} | self.records

    def _finished(self, key: str) -> dict[str, Any] | None:
        """Return the record of a cell that ran to its end; a failed cell gets another chance."""
        try:
            record = json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        if not _is_whole(record):
            return None
        (self.folder / f"{key}.log").unlink(missing_ok=True)  # the benchmark was killed before it did this
        return record

    def _startable(self, waiting: dict[str, Cell], running: list[Cell], ready: set[str]) -> list[str]:
        """Choose the cells to start now; skip a cell if a running one is making the same features."""
        making = {cell.features_key for cell in running} - ready
        chosen: list[str] = []
        for key, cell in waiting.items():
            if len(running) + len(chosen) >= self.jobs:
                break
            features = cell.features_key
            if features not in making or self.cache == "none":
                chosen.append(key)
                making |= {features} - ready
        return chosen

    def _start(self, key: str, cell: Cell) -> subprocess.Popen[str]:
        config = cell.config.model_dump(mode="json", exclude_unset=True) | {"cache": self.cache}
        with (self.folder / f"{key}.log").open("w") as log:
            process = subprocess.Popen(
                # -P: a file in the user's folder must not replace a module of the same name.
                [sys.executable, "-P", "-m", "ebsc_core.benchmark.cell"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                env=os.environ | self.thread_settings(),
                start_new_session=True,  # we forward Ctrl-C to it, once
            )
        assert process.stdin
        task = {"config": config, "record": str((self.folder / f"{key}.json").absolute())}
        with suppress(BrokenPipeError):  # it has ended already; its status says why
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
        return process

    def thread_settings(self) -> dict[str, str]:
        """Divide the machine's threads among the jobs; with all threads each, jobs slow each other down."""
        if self.jobs == 1:
            return {}
        given = os.environ.get("OMP_NUM_THREADS", "")
        most = int(given) if given.isdecimal() and int(given) else processors()
        return {"OMP_NUM_THREADS": str(max(1, min(most, processors() // self.jobs)))}

    def _collect(self, key: str, status: int) -> dict[str, Any]:
        path, log = self.folder / f"{key}.json", self.folder / f"{key}.log"
        if status == 0 and path.exists():
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        else:
            why = (
                f"killed by signal {-status}, perhaps for lack of memory" if status < 0 else f"exit {status}"
            )
            record = {"failed": f"the process ended ({why}); see {log}"}
        if "failed" not in record:
            log.unlink()
        return record

    def _reassure(self, running: list[Cell]) -> None:
        if running and time.monotonic() - self.heard > PATIENCE_SECONDS:
            self.heard = time.monotonic()
            self.progress.note(f"still running: {', '.join(cell.name for cell in running)}")

    def _tell(self, cell: Cell, record: dict[str, Any], left: list[Cell], cells: dict[str, Cell]) -> None:
        self.heard = time.monotonic()
        done, total = len(self.records), len(cells)
        if "failed" in record:
            # Settings in backticks would become flags of `ebsc run`, which this command does not have.
            reason = record["failed"].replace("`", "'")
            self.progress.warn(f"[{done}/{total}] {cell.name} failed: {reason}")
        else:
            scores = record["metrics"]["scores"] or {}
            figures = " ".join(f"{name.upper()} {100 * scores[name]:.1f}" for name in SCORES if scores)
            rest = f"about {clock(self._estimate(left, cells))} left" if left else ""
            message = ", ".join(filter(None, [figures, clock(record["wall_seconds"]), rest]))
            self.progress.note(f"[{done}/{total}] {cell.name}: {message}")

    def _estimate(self, left: list[Cell], cells: dict[str, Cell]) -> float:
        """Estimate the seconds that the remaining cells will take, from the most similar finished cells."""
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


def _stop(running: list[subprocess.Popen[str]]) -> None:
    """Stop processes as Ctrl-C does, so that they save checkpoints; kill those that do not end in time."""
    for process in running:
        if os.name == "posix":
            process.send_signal(signal.SIGINT)
        else:
            process.terminate()
    until = time.monotonic() + GRACE_SECONDS
    try:
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
    finally:
        for process in running:
            process.kill()
            process.wait()


def _is_whole(record: Any) -> bool:
    """Return whether this is the record of a cell that ran to its end."""
    try:
        metrics, made = record["metrics"], record["metrics"]["features_cost"]
        times = [record["wall_seconds"], *metrics["seconds"].values(), *made["seconds"].values()]
        times += [part["peak_memory_mib"] or 0 for part in (metrics, made)]
        times += [] if metrics["scores"] is None else [metrics["scores"][name] for name in SCORES]
        numbers = all(isinstance(value, int | float) for value in times)
        return record["format"] == FORMAT and numbers and isinstance(metrics["warnings"], list)
    except (TypeError, KeyError, AttributeError):
        return False


def _sources(cell: Cell) -> list[str | None]:
    """Return the names or paths of what the cell reads: the data, trained weights, an earlier run."""
    config = cell.config
    data = config.features.path if config.features else config.data.name
    weights = config.backbone.options.get("weights")
    return [data, weights if isinstance(weights, str) else None, config.like]


def _stamp(name: str | None) -> list[Any]:
    """Return what identifies the state of a file or folder; nothing for a data set known by name.

    For a file this is its content, because the file may have been copied or downloaded again. For a folder,
    or a file of more than ``READ`` bytes, reading would take too long, so it is sizes and dates.
    """
    path = Path(os.path.expanduser(name or ""))
    if not name or not path.exists():
        return []
    with suppress(OSError):  # the cells that need it will report the error
        if path.is_file() and path.stat().st_size <= READ:
            with path.open("rb") as file:
                return [hashlib.file_digest(file, "blake2b").hexdigest()]
    files = [path] if path.is_file() else sorted(_below(path))
    return [
        [str(file.relative_to(path)), found.st_size, found.st_mtime_ns]
        for file in files
        if (found := _state(file))
    ]


def _below(folder: Path) -> Iterator[Path]:
    """Yield what is in a folder, also behind links to other folders, as images are read; each folder once."""
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(here)) in seen:  # links may lead back
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(here, name) for name in (*folders, *files))


def _state(file: Path) -> os.stat_result:
    """Return size and date of what a link leads to; of the link itself if it leads nowhere."""
    try:
        return file.stat()
    except OSError:
        return file.lstat()


@contextmanager
def _only_one(out: Path) -> Iterator[None]:
    """Lock the output folder: two benchmarks in one folder would run every cell twice."""
    held = locked(out / ".lock")
    if held is None:
        raise RunDirectoryError(f"another benchmark is writing {out}; wait for it or choose another `out`")
    with held:
        yield

"""Compare several sides that work in turn (A B C A B C …), each in its own process.

The load of a machine changes by the minute. If the sides work in turn, they meet the same load, and their
medians and ratios can be compared. This does not hold if each side does all its work in one go. Only one
side works at a time; its data stay in memory in between.

The module imports nothing heavy: on Linux a process starts with the peak memory of its parent.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measuring import command as command  # so that a script beside this one finds them
from measuring import described as described
from measuring import keep as keep
from measuring import timed as timed
from measuring import unit_rows as unit_rows

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# A side that has finished its work must not keep the cores of the next side busy.
PATIENT = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
CLOCKS = ("wall", "cpu")


@dataclass(frozen=True)
class Side:
    """Describe one way to do the work. Its functions must be importable by name."""

    name: str
    start: Callable[..., Callable[[], Any]]
    """The side's process calls this once with ``arguments``. It imports, loads and returns the timed
    work."""
    arguments: tuple[Any, ...] = ()
    judge: Callable[..., dict[str, Any]] | None = None
    """The function ``judge(result, *arguments)`` returns the figures of a piece of work; it is not
    timed."""
    once: bool = False
    """If true, the side works in the first round only and without a warm-up, because it is very slow."""


@dataclass
class Worker:
    """Hold a side's process, and its seconds and figures of each round."""

    side: Side
    seconds: list[dict[str, float]] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)
    peak_mib: int | None = None
    failure: str | None = None

    def __post_init__(self) -> None:
        context = get_context("spawn")
        self.line, theirs = context.Pipe()
        # The process is no daemon: a daemon must not start processes that load images.
        self.process = context.Process(target=_serve, args=(self.side, theirs))
        self.process.start()
        theirs.close()
        self._hear(None)

    def work(self, limit_s: float | None, counts: bool) -> None:
        """Ask for one piece of work; end the side for good if it fails or takes too long."""
        self.line.send("work")
        answer = self._hear(limit_s)
        if answer and counts:
            seconds, figures, self.peak_mib = answer
            self.seconds.append(seconds)
            self.figures.append(figures)

    def end(self) -> None:
        self.process.terminate()
        self.process.join()

    def record(self) -> dict[str, Any]:
        """Return medians and all values by clock, figures, peak memory, and the reason of a failure."""
        record: dict[str, Any] = {}
        if self.seconds:
            each = {clock: [round(seconds[clock], 4) for seconds in self.seconds] for clock in CLOCKS}
            record = {"median_s": {clock: round(median(each[clock]), 4) for clock in CLOCKS}, "each_s": each}
            record |= {"peak_mib": self.peak_mib, "figures": self.figures}
        return record | ({"failure": self.failure} if self.failure else {})

    def _hear(self, limit_s: float | None) -> Any:
        """Return the answer of the process, or None if it fails."""
        if not self.line.poll(limit_s):
            self.failure = f"not done after {limit_s:g} s"
        else:
            try:
                answer = self.line.recv()
            except EOFError:
                answer = "its process ended"
            if not isinstance(answer, str):
                return answer
            self.failure = answer
        self.end()
        return None


def _serve(side: Side, line: Connection) -> None:
    """Load, then work whenever asked, in the side's process; answer a failure with a line of text."""
    try:
        work = side.start(*side.arguments)
        line.send(())
        while line.recv():
            result, seconds = timed(work)
            figures = side.judge(result, *side.arguments) if side.judge else {}
            from ebsc_core.utils.system import peak_memory_mib

            line.send((seconds, figures, peak_memory_mib()))
    except Exception as error:
        line.send(f"{type(error).__name__}: {error}".splitlines()[0])


def compare(
    sides: Sequence[Side], rounds: int, threads: int = 1, limit_s: float | None = None
) -> dict[str, Any]:
    """Let the sides work in turn, and compare the first side with the fastest other one.

    Parameters
    ----------
    sides : sequence of Side
        The sides, with distinct names.
    rounds : int
        The number of rounds, after a warm-up that does not count.
    threads : int
        The number of threads for each side's linear algebra.
    limit_s : float, optional
        The longest time, in seconds, for one piece of work. A slower side is ended, and the record says so.

    Returns
    -------
    dict
        The record of the comparison.
    """
    loads = []
    with _started(sides, threads) as workers:
        for number in range(-1, rounds):
            loads.append(round(os.getloadavg()[0], 2))
            for worker in workers:
                if worker.failure is None and (number == 0 or not worker.side.once):
                    worker.work(limit_s, counts=number >= 0)
    records = {worker.side.name: worker.record() for worker in workers}
    record = described() | {"rounds": rounds, "load_average": loads}
    record["machine"]["threads"] = threads
    return record | {"sides": records, "times_faster": times_faster(records)}


def times_faster(records: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Find the fastest side except the first, by clock, and how many times faster the first one is."""
    medians = {name: record["median_s"] for name, record in records.items() if "median_s" in record}
    first = medians.pop(next(iter(records)), None)
    if not first or not medians:
        return {}
    fastest = {clock: min(medians, key=lambda name, by=clock: medians[name][by]) for clock in CLOCKS}
    return {
        clock: {"than": name, "ratio": round(medians[name][clock] / first[clock], 2)}
        for clock, name in fastest.items()
        if first[clock]  # the clock may be too coarse to measure anything
    }


@contextmanager
def _started(sides: Sequence[Side], threads: int) -> Iterator[list[Worker]]:
    """Start one worker per side, one after the other, with this many threads; end them with the block."""
    settings = dict.fromkeys(THREADS, str(threads)) | PATIENT
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    workers: list[Worker] = []
    try:
        for side in sides:
            workers.append(Worker(side))
        yield workers
    finally:
        for worker in workers:
            worker.end()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

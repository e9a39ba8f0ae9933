"""Sides of a comparison, each in a process of its own, made to work in turn: A B C A B C …

A machine grows busier and idler by the minute. Work done in turn meets the same moods, so that medians and
their ratio mean something where one run after another would not. Only one side works at a time; what it has
loaded stays in memory in between.

Nothing heavy is imported here: on Linux a process starts with the peak memory of the one that started it.
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
# A side that has done its work must not spin on the cores of the next.
PATIENT = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
CLOCKS = ("wall", "cpu")


@dataclass(frozen=True)
class Side:
    """One way to do the work. What it calls must be importable by name."""

    name: str
    start: Callable[..., Callable[[], Any]]
    """Called once in the side's process, with ``arguments``: imports, loads, returns the work to be timed."""
    arguments: tuple[Any, ...] = ()
    judge: Callable[..., dict[str, Any]] | None = None
    """Figures of a piece of work, off the clock: ``judge(result, *arguments)``."""
    once: bool = False
    """Works in the first round only and without a warm-up, being very slow."""


@dataclass
class Worker:
    """A side's process, and what it took and found round by round."""

    side: Side
    seconds: list[dict[str, float]] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)
    peak_mib: int | None = None
    failure: str | None = None

    def __post_init__(self) -> None:
        context = get_context("spawn")
        self.line, theirs = context.Pipe()
        # No daemon: those may not start the processes that load images for them.
        self.process = context.Process(target=_serve, args=(self.side, theirs))
        self.process.start()
        theirs.close()
        self._hear(None)

    def work(self, limit_s: float | None, counts: bool) -> None:
        """One piece of work; a side that fails or takes too long is ended and asked no more."""
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
        """Medians and every value by clock, figures, peak memory; why it failed, if it did."""
        record: dict[str, Any] = {}
        if self.seconds:
            each = {clock: [round(seconds[clock], 4) for seconds in self.seconds] for clock in CLOCKS}
            record = {"median_s": {clock: round(median(each[clock]), 4) for clock in CLOCKS}, "each_s": each}
            record |= {"peak_mib": self.peak_mib, "figures": self.figures}
        return record | ({"failure": self.failure} if self.failure else {})

    def _hear(self, limit_s: float | None) -> Any:
        """What it answers; None if it fails."""
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
    """In the side's process: load, then work whenever asked. A failure is answered with a line of text."""
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
    """Let the sides work in turn; the record of what each took, the first compared with the fastest other.

    Parameters
    ----------
    sides : sequence of Side
        With names of their own.
    rounds : int
        How often each works, after a warm-up that does not count.
    threads : int
        For each side's linear algebra.
    limit_s : float, optional
        A side that takes longer over one piece of work is ended, and the record says so.
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
    """By clock: the fastest side but the first, and how often the first's median fits into its."""
    medians = {name: record["median_s"] for name, record in records.items() if "median_s" in record}
    first = medians.pop(next(iter(records)), None)
    if not first or not medians:
        return {}
    fastest = {clock: min(medians, key=lambda name, by=clock: medians[name][by]) for clock in CLOCKS}
    return {
        clock: {"than": name, "ratio": round(medians[name][clock] / first[clock], 2)}
        for clock, name in fastest.items()
        if first[clock]  # a clock may be too coarse to have seen anything
    }


@contextmanager
def _started(sides: Sequence[Side], threads: int) -> Iterator[list[Worker]]:
    """A worker a side, loaded one after the other, with that many threads; they end with the block."""
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

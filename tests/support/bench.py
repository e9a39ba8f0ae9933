"""Run suites in one folder, with cells that take milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ebsc_core.benchmark.results import Results
from ebsc_core.benchmark.runner import run_suite
from ebsc_core.benchmark.suite import Suite
from ebsc_core.plugins.registry import Registry
from ebsc_core.utils.progress import Progress

MakeSuite = Callable[..., Suite]
StandIn = Callable[..., Path]


class Said(Progress):
    """Keeps the notes."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


class Run(NamedTuple):
    results: Results
    said: Said
    started: list[str]
    """What was started in this run, e.g. ``knn 0``."""


class Bench:
    """Runs suites in one folder."""

    def __init__(self, suite: MakeSuite, stand_in: StandIn, out: Path) -> None:
        self.suite, self.stand_in, self.out = suite, stand_in, out

    def __call__(
        self, chosen: Suite | str | None = None, jobs: int = 1, body: str = "", cache: str | None = None
    ) -> Run:
        self.log, said = self.stand_in(body), Said()
        self.log.write_text("")
        if not isinstance(chosen, Suite):
            chosen = self.suite(chosen) if chosen else self.suite()
        results = run_suite(chosen, self.out, jobs, cache, Registry(), said)
        return Run(results, said, [" ".join(words[:2]) for words in self.starts()])

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.log.read_text().splitlines()]

    def starts(self) -> list[list[str]]:
        return [words for words in self.lines() if words[0] != "end"]

    def files(self) -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (self.out / "cells").iterdir()}

    def spans(self) -> dict[str, tuple[float, float]]:
        """When each cell ran."""
        begun = {" ".join(w[:2]): float(w[2]) for w in self.starts()}
        ended = {" ".join(w[1:3]): float(w[3]) for w in self.lines() if w[0] == "end"}
        return {name: (begun[name], ended[name]) for name in begun}

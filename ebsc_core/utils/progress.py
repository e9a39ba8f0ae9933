"""How a run tells what it is doing. The core speaks through this; the command line draws it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


class Progress:
    """Silent by default; subclasses override what they show. Collects the run's warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def note(self, message: str) -> None:
        """One line of information."""

    def warn(self, message: str) -> None:
        """One line of warning, kept for ``metrics.json``."""
        self.warnings.append(message)

    def start(self, stage: str, total: int, unit: str) -> None:
        """A stage of ``total`` units (e.g. ``images``) begins."""

    def advance(self, done: int, figures: Mapping[str, float] | None = None) -> None:
        """``done`` units of the current stage are finished; figures such as the loss, if new."""

    def finish(self, summary: str = "") -> None:
        """The current stage is over."""


class Stages:
    """Times what is done in each: ``with stage("clusters"): ...``; what is done again is added.

    Parameters
    ----------
    finished : callable
        Told the name and seconds of each when it is over.
    """

    def __init__(self, finished: Callable[[str, float], None] = lambda stage, seconds: None) -> None:
        self.seconds: dict[str, float] = {}
        self.finished = finished

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.note(name, time.perf_counter() - start)

    def note(self, name: str, seconds: float) -> None:
        """A stage that was timed elsewhere."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.finished(name, seconds)


def clock(seconds: float) -> str:
    """A duration in words, e.g. ``42 s``, ``3 min 05 s``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"

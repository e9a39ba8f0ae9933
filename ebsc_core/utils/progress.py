"""Report the progress of a run. The core calls this interface; the command line displays it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


class Progress:
    """Collect the warnings of a run and show nothing; subclasses override the methods to show progress."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def note(self, message: str) -> None:
        """Show one line of information."""

    def warn(self, message: str) -> None:
        """Show one line of warning and keep it for ``metrics.json``."""
        self.warnings.append(message)

    def start(self, stage: str, total: int, unit: str) -> None:
        """Begin a stage of ``total`` units (e.g. ``images``)."""

    def advance(self, done: int, figures: Mapping[str, float] | None = None) -> None:
        """Report the number of finished units of the current stage, and new figures such as the loss."""

    def finish(self, summary: str = "") -> None:
        """End the current stage."""


class Stages:
    """Measure the time of each stage, ``with stage("clusters"): ...``; repeated stages add up.

    Parameters
    ----------
    finished : callable
        Called with the name and the seconds of each stage when the stage ends.
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
        """Add the time of a stage that was measured elsewhere."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.finished(name, seconds)


def clock(seconds: float) -> str:
    """Format a duration, e.g. ``42 s`` or ``3 min 05 s``."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"

"""Show progress as a live bar on a terminal and as plain lines elsewhere, and print the final table."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table

from ebsc_cli.flags import in_flags
from ebsc_cli.tables import plain_console, warning
from ebsc_core.runs.outcome import RunResult
from ebsc_core.runs.store.listing import SCORES
from ebsc_core.utils.errors import first_of, printable_lines
from ebsc_core.utils.progress import Progress, clock

LINE_EVERY_SECONDS = 10.0


class ConsoleProgress(Progress):
    """Print notes and progress on standard output, and warnings on standard error.

    With ``on_errors``, everything goes to standard error, because standard output is for the result.
    """

    def __init__(self, quiet: bool = False, on_errors: bool = False) -> None:
        super().__init__()
        self.quiet = quiet
        self.console = plain_console(errors=on_errors)
        self.errors = plain_console(errors=True)
        self.live = self.console.is_terminal and not quiet
        self.bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            console=self.console,
            transient=True,
            disable=not self.live,
        )

    def __enter__(self) -> ConsoleProgress:
        self.bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bars.stop()

    def note(self, message: str) -> None:
        if not self.quiet:
            self.console.print(printable_lines(in_flags(message)))

    def warn(self, message: str) -> None:
        super().warn(message)  # files keep the names of settings
        self.errors.print(warning(printable_lines(in_flags(message))))

    def start(self, stage: str, total: int, unit: str) -> None:
        self.stage, self.total, self.unit = stage, total, unit
        self.began = self.last_line = time.perf_counter()
        self.figures: dict[str, float] = {}
        self.done = 0
        self.task = self.bars.add_task(stage, total=total, text="")

    def advance(self, done: int, figures: Mapping[str, float] | None = None) -> None:
        self.done = done
        self.figures.update(figures or {})
        now = time.perf_counter()
        text = self._text(now)
        self.bars.update(self.task, completed=done, text=text)
        if not self.live and not self.quiet and now - self.last_line > LINE_EVERY_SECONDS:
            self.last_line = now
            self.console.print(f"{self.stage}: {done}/{self.total} {self.unit}, {text}")

    def finish(self, summary: str = "") -> None:
        self.bars.remove_task(self.task)
        if not self.quiet and self.done:
            seconds = time.perf_counter() - self.began
            rate = f"{self.done / seconds:.0f} {self.unit}/s" if seconds > 1 else ""
            parts = [f"{self.done} {self.unit} in {clock(seconds)}", rate, self._figures(), summary]
            self.console.print(f"{self.stage}: {', '.join(filter(None, parts))}")

    def _text(self, now: float) -> str:
        rate = self.done / max(now - self.began, 1e-9)
        left = (self.total - self.done) / max(rate, 1e-9)
        parts = [self._figures(), f"{rate:.0f} {self.unit}/s", f"{clock(left)} left"]
        return ", ".join(filter(None, parts))

    def _figures(self) -> str:
        return ", ".join(f"{name} {value:.4g}" for name, value in self.figures.items())


def print_result(console: Console, result: RunResult, report: Path | None) -> None:
    """Print the final table and the paths of the run directory and the report, even with ``--quiet``."""
    table = Table("figure", "value", title="Result", title_justify="left")
    for name, value in _rows(result.metrics):
        table.add_row(name, value)
    console.print(table)
    console.print(f"run directory: {result.directory}")
    if report:
        console.print(f"report: {report}")


def _rows(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    free = metrics["label_free"]
    scores = metrics["scores"] or {}
    rows = [
        (name.upper() if name in SCORES else name.replace("_", "-"), f"{100 * value:.1f} %")
        for name, value in scores.items()
    ]
    for name in ("silhouette", "eigengap", "within_cluster_mass"):
        if free[name] is not None:
            rows.append((name.replace("_", "-"), f"{free[name]:.3f}"))
    sizes = sorted(free["cluster_sizes"], reverse=True)
    rows.append(("cluster sizes", first_of(sizes, 12)))
    rows.append(("time", clock(sum(metrics["seconds"].values()))))
    return rows

"""Implement ``ebsc runs``: list runs and their results."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ebsc_cli.tables import table_console
from ebsc_core.runs.store.listing import Listed, list_runs
from ebsc_core.utils.errors import printable
from ebsc_core.utils.progress import clock

COLORS = {"finished": "green", "running": "cyan", "unfinished": "yellow", "damaged": "red"}
NUMBERS = ("K", "ACC", "NMI", "ARI", "within", "time")


def runs(
    folder: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="The folder to search.", show_default="runs")
    ] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with more details.")] = False,
) -> None:
    """List the finished and unfinished runs below a folder, newest first.

    ACC, NMI and ARI are in percent, and need labels. The column "within" shows the share of the affinity
    that lies within clusters.
    """
    found = list_runs(folder)
    if as_json:
        print(json.dumps([run.record() for run in found], indent=2))
        return
    console = table_console()
    if not found:
        console.print(f"no runs in {printable(str(folder))}")
        return
    table = Table("run", "when", "data", "parts", *NUMBERS, "state")
    for column in table.columns[4:-1]:
        column.justify = "right"
    for run in found:
        table.add_row(*_row(run), Text(run.state, COLORS[run.state]))
    wide = console.options.update_width(10**6)
    if console.measure(table, options=wide).maximum <= console.width:
        console.print(table)
    else:
        for run in found:
            _print_below_one_another(console, run)
    for run in found:
        if run.problem:
            console.print(Text.assemble(("damaged:", "red"), f" {printable(run.problem)}"), soft_wrap=True)


def _print_below_one_another(console: Console, run: Listed) -> None:
    """Print a run on lines of its own: a table that does not fit would cut its path into pieces."""
    path, when, data, parts, *figures = _row(run)
    named = zip(NUMBERS, figures, strict=True)
    lines = [(when, data), (parts,), [f"{name} {figure}" for name, figure in named if figure]]
    console.print(Text.assemble((path, "bold"), "  ", (run.state, COLORS[run.state])), soft_wrap=True)
    for line in filter(any, lines):
        console.print(f"    {'  '.join(filter(None, line))}", soft_wrap=True)


def _row(run: Listed) -> list[str]:
    scores, within = run.scores or {}, run.label_free.get("within_cluster_mass")
    cells = [
        run.path,
        _local(run.when) if run.when else "",
        Path(run.data).name if run.data else "",
        " ".join(run.parts.values()),
        "" if run.clusters is None else str(run.clusters),
        *(f"{100 * scores[name]:.1f}" if name in scores else "" for name in ("acc", "nmi", "ari")),
        "" if within is None else f"{within:.3f}",
        "" if run.seconds is None else clock(run.seconds),
    ]
    return [printable(cell) for cell in cells]


def _local(when: str) -> str:
    """Return a time as it is here; at the very ends of the calendar, where that has no name, in UTC."""
    moment = datetime.fromisoformat(when)
    with suppress(OverflowError, ValueError):
        moment = moment.astimezone()
    return f"{moment:%Y-%m-%d %H:%M}"

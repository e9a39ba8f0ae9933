"""Implement ``ebsc report``: write the page of a finished run again."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from ebsc_cli.flags import OPTION, ImagesNow, in_flags
from ebsc_cli.tables import plain_console, warning
from ebsc_core.utils.errors import printable


def report(
    run: Annotated[Path, typer.Argument(help="The directory of a finished run.", metavar="RUN")],
    data: ImagesNow = None,
    open_it: Annotated[bool, OPTION("--open", help="Open the report in the browser.")] = False,
) -> None:
    """Write report.html of a finished run again: images of each cluster, a map, figures and warnings.

    The command reads the images again from the run's data. If they are gone, the page says so.
    """
    from ebsc_core.runs.store.directory import check_finished

    check_finished(run)  # before the imports below, which take seconds
    from ebsc_core.plugins.registry import Registry
    from ebsc_core.report import rewrite_report

    console, errors = plain_console(), plain_console(errors=True)
    path = rewrite_report(
        run,
        Registry(),
        lambda message: errors.print(warning(printable(in_flags(message)))),
        lambda message: console.print(printable(message)),
        data,
    )
    console.print(f"report: {path}")
    if open_it:
        webbrowser.open(path.resolve().as_uri())

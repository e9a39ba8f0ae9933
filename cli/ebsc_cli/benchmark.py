"""Implement ``ebsc benchmark``: run a suite and write the table that compares its runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ebsc_cli.flags import OPTION


def benchmark(
    suite: Annotated[Path, typer.Argument(metavar="SUITE.toml", help="The file of the suite.")],
    out: Annotated[
        Path | None,
        OPTION(
            metavar="DIR", help="Folder for finished cells and the table. \\[default: runs/benchmark-SUITE]"
        ),
    ] = None,
    jobs: Annotated[
        int,
        OPTION(metavar="N", min=1, help="Run this many cells at once, in processes that share the threads."),
    ] = 1,
    baseline: Annotated[
        str | None,
        OPTION(
            metavar="ROW",
            help="Show the gains of the other rows over this row. \\[default: as the suite says]",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        OPTION(
            "--set",
            metavar="SECTION.OPTION=VALUE",
            help="Change a setting in every cell, e.g. backbone.name=resnet18; repeatable.",
        ),
    ] = None,
    cache: Annotated[
        str | None,
        OPTION(
            metavar="DIR",
            help="Folder that keeps trained features for reuse; none keeps nothing. "
            "\\[default: in the user's cache]",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        OPTION(
            "--minutes",
            metavar="MINUTES",
            min=0,
            help="Stop after this many minutes; the same command resumes, even during a training. "
            "\\[default: no limit]",
        ),
    ] = None,
    quiet: Annotated[bool, OPTION("--quiet", "-q", help="Print the table and warnings only.")] = False,
) -> None:
    """Run every row of a suite on every data set with every seed, and write the table.

    Finished cells are kept. If the suite stops early, the same command resumes it.
    """
    # Import these here, so that help does not wait for them.
    from rich.markdown import Markdown

    from ebsc_cli.console import ConsoleProgress
    from ebsc_cli.tables import table_console
    from ebsc_core.benchmark.runner import run_suite
    from ebsc_core.benchmark.suite import load_suite
    from ebsc_core.benchmark.table import markdown
    from ebsc_core.plugins.registry import Registry

    chosen = load_suite(suite, settings or [], baseline)
    folder = out or Path("runs") / f"benchmark-{chosen.name}"
    with ConsoleProgress(quiet=quiet) as progress:
        results = run_suite(chosen, folder, jobs, cache, Registry(), progress, minutes)
    console = table_console()
    console.print(Markdown(markdown(results, commands=False)))
    console.print(f"table and commands: {folder / 'table.md'}, {folder / 'table.html'}", soft_wrap=True)
    if any(entry.failed for entry in results.entries.values()):
        raise typer.Exit(1)

"""``ebsc benchmark``: a suite of runs, and the table that compares them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown
from rich.markup import escape

OPTION = typer.Option
# Of the table where no terminal says how wide it is.
WIDTH = 160


def benchmark(
    suite: Annotated[Path, typer.Argument(metavar="SUITE.toml", help="What to compare, on which data.")],
    out: Annotated[
        Path | None,
        OPTION(help="Where finished cells and the table are kept. \\[default: runs/benchmark-SUITE]"),
    ] = None,
    jobs: Annotated[
        int, OPTION(min=1, help="Cells at once, each in a process with its share of the threads.")
    ] = 1,
    baseline: Annotated[str | None, OPTION(help="The row that gains are counted from.")] = None,
    settings: Annotated[
        list[str] | None,
        OPTION(
            "--set",
            metavar="PART.OPTION=VALUE",
            help="Change a setting of every cell, e.g. backbone.name=resnet18; repeatable.",
        ),
    ] = None,
    cache: Annotated[
        str | None, OPTION(help="Where trained features are kept for reuse; none for nowhere.")
    ] = None,
    minutes: Annotated[
        float | None,
        OPTION(
            min=0,
            help="Stop after so long; the same command goes on, even in the midst of training.",
        ),
    ] = None,
    quiet: Annotated[bool, OPTION("--quiet", "-q", help="Print the table and warnings only.")] = False,
) -> None:
    """Run every row of a suite on every data set with every seed, and write the table.

    What is finished is kept: the same command goes on where it was stopped.
    """
    # Imported here, so that `ebsc --help` does not wait for torch.
    from ebsc_cli.console import ConsoleProgress
    from ebsc_core.benchmark.runner import run_suite
    from ebsc_core.benchmark.suite import load_suite
    from ebsc_core.benchmark.table import markdown
    from ebsc_core.plugins.registry import Registry

    chosen = load_suite(suite, settings or [], baseline)
    folder = out or Path("runs") / f"benchmark-{chosen.name}"
    with ConsoleProgress(quiet=quiet) as progress:
        results = run_suite(chosen, folder, jobs, cache, Registry(), progress, minutes)
    console = progress.console
    if not console.is_terminal:
        console.width = max(WIDTH, console.width)
    console.print(Markdown(markdown(results, commands=False)), soft_wrap=False)
    console.print(escape(f"table and commands: {folder / 'table.md'}, {folder / 'table.html'}"))
    if any(entry.failed for entry in results.entries.values()):
        raise typer.Exit(1)

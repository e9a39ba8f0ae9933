"""Implement ``ebsc compare``: show runs side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ebsc_cli.tables import plain_console, table_console, warning
from ebsc_core.utils.errors import ConfigError, RunDirectoryError, printable

if TYPE_CHECKING:
    from ebsc_core.runs.store.compare import Comparison, Contingency


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN ...", help="The directories of finished runs.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE.html", help="Also write an HTML page.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Compare the figures, the configurations and the clusters of runs.

    Images are matched by name. So you can compare runs on different samples of the same data.
    """
    if len(runs) < 2:
        raise ConfigError("there is nothing to compare: give the directories of two runs or more")
    from ebsc_core.runs.store.directory import check_finished, check_output, own_files

    for run in runs:
        check_finished(run)  # before the imports below, which take a second
    from ebsc_core.runs.store.compare import compare as compare_runs
    from ebsc_core.runs.store.saved import SavedRun
    from ebsc_core.utils.files import check_form

    if out:
        check_output(out, [file for run in runs for file in own_files(run)])
        check_form(out, ".html")
    saved = [SavedRun(run) for run in runs]
    comparison = compare_runs(saved)
    errors = plain_console(errors=True)
    for unchecked in filter(None, (run.files.unchecked for run in saved)):
        errors.print(warning(printable(unchecked)))
    if out:
        _write(out, comparison)
    if as_json:
        print(json.dumps(comparison.record(), indent=2, default=str))
        return
    console = table_console()
    _print(console, comparison)
    if out:
        console.print(f"page: {printable(str(out))}", soft_wrap=True)


def _write(out: Path, comparison: Comparison) -> None:
    from ebsc_core.report.compare_page import page
    from ebsc_core.utils.files import written_whole

    try:
        with written_whole(out) as temporary_path:
            temporary_path.write_text(page(comparison), encoding="utf-8")
    except OSError as error:
        raise RunDirectoryError(f"cannot write {out}: {error.strerror or error}; choose another -o") from None


def _print(console: Console, comparison: Comparison) -> None:
    from ebsc_core.report.compare_page import figures, settings

    numbers = [str(number) for number in range(1, len(comparison.runs) + 1)]
    for number, run in zip(numbers, comparison.runs, strict=True):
        console.print(f"{number}  {printable(run)}", soft_wrap=True)
    console.print(Text.assemble(("\nFigures", "bold"), " (and the difference to run 1)"), soft_wrap=True)
    table = Table("", *numbers)
    for name, cells in figures(comparison):
        table.add_row(name, *(f"{value} ({change})" if change else value for value, change in cells))
    console.print(table)
    different = settings(comparison)
    console.print(
        Text.assemble(("\nDifferences in the configuration", "bold"), "" if different else ": nothing")
    )
    table = Table("", *numbers)
    for column in table.columns:
        column.overflow = "fold"
    for name, values in different:
        table.add_row(name, *values)
    if different:
        console.print(table)
    console.print(Text("\nAgreement of the clusters", "bold"))
    for pair in comparison.agreements:
        which = f"runs {pair.first + 1} and {pair.second + 1}"
        console.print(f"{which}: ARI {pair.ari:.3f} on {pair.images} images that both have", soft_wrap=True)
        if pair.unclear:
            left_out = "one of the runs has their names more often"
            console.print(
                f"{pair.unclear} images of run {pair.first + 1} are left out: {left_out}", soft_wrap=True
            )
    for other, contingency in comparison.contingencies.items():
        _print_contingency(console, other + 1, contingency)


def _print_contingency(console: Console, other: int, contingency: Contingency) -> None:
    """Print the table of the clusters of run 1 and another run, or say how to see it if it does not fit."""
    console.print(Text(f"\nClusters of run 1 and run {other}", "bold"), soft_wrap=True)
    total = contingency.counts.sum()
    console.print(f"{contingency.matched} of {total} images are in matched clusters", soft_wrap=True)
    table = Table("", *map(str, contingency.columns), padding=(0, 0))
    for column in table.columns:
        column.justify, column.no_wrap = "right", True
    for cluster, counts in zip(contingency.rows, contingency.counts, strict=True):
        table.add_row(Text(str(cluster), "bold"), *(str(count) if count else "" for count in counts))
    if console.measure(table).minimum > console.width or len(contingency.rows) > 60:
        console.print("(the table is too large for the terminal: write a page with -o)")
        return
    console.print(
        f"rows: the clusters of run 1, largest first; columns: those of run {other}", soft_wrap=True
    )
    console.print(table)

"""Implement ``ebsc name``, ``merge``, ``split`` and ``move``: decide about the clusters of a finished run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ebsc_cli.flags import OPTION
from ebsc_cli.tables import table_console
from ebsc_core.utils.errors import ConfigError, printable

if TYPE_CHECKING:
    from ebsc_core.runs.store.saved import SavedRun

Run = Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a finished run.")]
Undo = Annotated[
    bool, OPTION("--undo", help="Take the last decision about the run back, whichever command made it.")
]


def name(
    run: Run,
    cluster: Annotated[
        str | None, typer.Argument(metavar="[CLUSTER]", help="The number or the name of a cluster.")
    ] = None,
    called: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help='Its name; "" takes its name away.')
    ] = None,
    names: Annotated[
        Path | None, OPTION("--from", metavar="FILE.toml", help='Read names: lines of the form 3 = "herbs".')
    ] = None,
    undo: Undo = False,
) -> None:
    """Give clusters names, or list the clusters with their sizes and names.

    Names appear in exports, in what `ebsc predict` writes, and in the report once `ebsc report` writes it
    again. They are kept in decisions.json of the run; no other file changes.
    """
    from ebsc_core.curation.decide import name_clusters
    from ebsc_core.curation.names import read_names
    from ebsc_core.runs.store.saved import SavedRun

    saved = SavedRun(run)
    given = [cluster is not None, names is not None, undo]
    if sum(given) > 1 or (cluster is None) != (called is None):
        raise ConfigError("give a cluster and its name, or --from FILE.toml, or --undo, or the run alone")
    if undo:
        saved = _undone(saved)
    elif names is not None:
        saved = name_clusters(saved, read_names(names))
    elif cluster is not None and called is not None:
        saved = name_clusters(saved, {cluster: called})
    _show(saved, decided=any(given))


def merge(
    run: Run,
    clusters: Annotated[
        list[str] | None,
        typer.Argument(metavar="CLUSTER...", help="The numbers or the names of two or more clusters."),
    ] = None,
    undo: Undo = False,
) -> None:
    """Join clusters to one; the smallest number stays.

    The decision is kept in decisions.json of the run; no other file changes. Exports and `ebsc predict`
    follow it, and the report does once `ebsc report` writes it again.
    """
    from ebsc_core.curation.decide import merge_clusters
    from ebsc_core.runs.store.saved import SavedRun

    saved = SavedRun(run)
    if undo == bool(clusters):
        raise ConfigError("give two or more clusters to merge, or --undo")
    _show(_undone(saved) if undo else merge_clusters(saved, clusters or []))


def split(
    run: Run,
    cluster: Annotated[
        str | None, typer.Argument(metavar="CLUSTER", help="The number or the name of a cluster.")
    ] = None,
    into: Annotated[int, OPTION(min=2, metavar="N", help="The number of parts.")] = 2,
    undo: Undo = False,
) -> None:
    """Cut a cluster into parts by the affinity that the run has saved, without training anything again.

    The largest part keeps the number, and the others get the next free numbers. The decision is kept in
    decisions.json of the run; no other file changes. Exports and `ebsc predict` follow it, and the report
    does once `ebsc report` writes it again.
    """
    from ebsc_cli.console import ConsoleProgress
    from ebsc_core.curation.decide import split_cluster
    from ebsc_core.plugins.registry import Registry
    from ebsc_core.runs.store.saved import SavedRun

    saved = SavedRun(run)
    if undo == (cluster is not None):
        raise ConfigError("give a cluster to split, or --undo")
    if cluster is None:
        saved = _undone(saved)
    else:
        with ConsoleProgress() as shown:
            saved = split_cluster(saved, cluster, into, Registry(), shown)
    _show(saved)


def move(
    run: Run,
    cluster: Annotated[
        str | None,
        typer.Argument(
            metavar="CLUSTER", help="The number or the name of a cluster, or `none` for no cluster."
        ),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE...", help="Names of images of the run; the end of a path will do."),
    ] = None,
    table: Annotated[
        Path | None,
        OPTION("--from", metavar="FILE.csv", help="Read names from the column `image` of a table."),
    ] = None,
    undo: Undo = False,
) -> None:
    """Move single images to another cluster, or to none.

    The table may be one of `ebsc outliers` or `ebsc export`, after you have removed the lines that shall
    stay. The decision is kept in decisions.json of the run; no other file changes. Exports and `ebsc predict`
    follow it, and the report does once `ebsc report` writes it again.
    """
    from ebsc_core.curation.decide import move_images
    from ebsc_core.curation.lookup import read_images
    from ebsc_core.runs.store.saved import SavedRun

    saved = SavedRun(run)
    if undo != (cluster is None) or (cluster is not None and bool(images) == (table is not None)):
        raise ConfigError("give a cluster, and the images to move there or --from FILE.csv; or --undo alone")
    if cluster is None:
        saved = _undone(saved)
    else:
        saved = move_images(saved, (images or []) if table is None else read_images(table), cluster)
    _show(saved)


def _undone(run: SavedRun) -> SavedRun:
    from ebsc_core.curation.decide import undo

    before, decision = undo(run)
    table_console().print(f"taken back: {printable(str(decision))}", soft_wrap=True)
    return before


def _show(run: SavedRun, decided: bool = True) -> None:
    """Print the clusters as they are now, and after a decision, what does not show it yet."""
    from ebsc_core.runs.store.cluster_names import NONE
    from ebsc_core.runs.store.directory import REPORT

    table = Table("cluster", "images", "name")
    for column in table.columns[:2]:
        column.justify = "right"
    for number, size in run.curated.sizes().items():
        table.add_row(str(number), f"{size:,}", run.curated.names.get(number, ""))
    if none := int((run.curated.clusters < 0).sum()):
        table.add_row(NONE, f"{none:,}", "")
    console = table_console()
    console.print(table)
    if decided and (run.path / REPORT).exists():
        again = f"ebsc report {shlex.quote(str(run.path))}"
        console.print(
            printable(f"{REPORT} shows the clusters as before; to write it again: {again}"), soft_wrap=True
        )

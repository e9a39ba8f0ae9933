"""Implement ``ebsc similar``: show the images of a run that are most similar to one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from ebsc_cli.flags import OPTION, Device, Quiet, TableOut


def similar(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a finished run.")],
    image: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE|ROW",
            help="An image of the run, by its name in assignments.csv or (unless names are numbers) its "
            "position; or a new image file.",
        ),
    ],
    top: Annotated[int, OPTION(min=1, metavar="N", help="How many images to show.")] = 20,
    out: TableOut = None,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Show the images of a finished run that are most similar to a given one, with their clusters.

    The similarity is the cosine of the rows that were clustered. A new image goes through the run's network.
    The table has a line per image: image, similarity, cluster, confidence, and name if clusters have names.
    """
    from rich.table import Table

    from ebsc_cli.console import ConsoleProgress
    from ebsc_cli.tables import table_console, with_name
    from ebsc_core.curation.similar import find_similar
    from ebsc_core.curation.tables import check_table, name_column, write_table
    from ebsc_core.plugins.registry import Registry
    from ebsc_core.runs.predict import Predictor
    from ebsc_core.runs.store.directory import own_files
    from ebsc_core.runs.store.saved import SavedRun
    from ebsc_core.utils.device import prepare, resolve_device
    from ebsc_core.utils.errors import printable

    if out:
        check_table(out, [Path(os.path.expanduser(image)), *own_files(run)])
    saved, shown = SavedRun(run), ConsoleProgress(quiet=quiet)
    chosen = resolve_device("auto" if device is None else device)
    with shown:
        prepare(chosen)
        found = find_similar(saved, image, top, lambda: Predictor(saved, Registry(), chosen, shown), shown)
    names, clusters = saved.curated.names, [one.cluster for one in found]
    if out:
        columns: dict[str, list[Any]] = {
            "image": [one.image for one in found],
            "similarity": [round(one.similarity, 4) for one in found],
            "cluster": clusters,
            "confidence": [round(one.confidence, 4) for one in found],
        }
        write_table(out, columns | name_column(names, clusters), over=True)
    table = Table("image", "similarity", "cluster", "confidence")
    for one in found:
        figures = f"{one.similarity:.4f}", f"{one.confidence:.4f}"
        cells = one.image, figures[0], with_name(names, one.cluster), figures[1]
        table.add_row(*map(printable, cells))
    table_console().print(table)

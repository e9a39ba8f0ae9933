"""Implement ``ebsc outliers``: list the images that belong least to the others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ebsc_cli.flags import OPTION, TableOut


def outliers(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a finished run.")],
    top: Annotated[int, OPTION(min=1, metavar="N", help="How many images to list.")] = 50,
    out: TableOut = None,
) -> None:
    """List the images of a finished run that belong least to the others, with reasons.

    An image is an outlier if it is far from its nearest neighbours, compared with all images and with these
    neighbours themselves. The table has every figure.
    """
    from dataclasses import fields

    from rich.table import Table

    from ebsc_cli.tables import table_console, with_name
    from ebsc_core.curation.outliers import Outlier, find_outliers
    from ebsc_core.curation.tables import check_table, name_column, write_table
    from ebsc_core.runs.store.directory import own_files
    from ebsc_core.runs.store.saved import SavedRun
    from ebsc_core.utils.errors import printable

    if out:
        check_table(out, own_files(run))
    saved = SavedRun(run)
    found, names = find_outliers(saved, top), saved.curated.names
    if out:
        columns = {field.name: [getattr(one, field.name) for one in found] for field in fields(Outlier)}
        write_table(out, columns | name_column(names, [one.cluster for one in found]), over=True)
    table = Table("image", "score", "cluster", "why")
    for one in found:
        cells = (one.image, f"{one.score:.2f}", with_name(names, one.cluster), one.why)
        table.add_row(*map(printable, cells))
    table_console().print(table)

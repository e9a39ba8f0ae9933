"""Implement ``ebsc export``: folders, tables and files for labeling programs from a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ebsc_cli.flags import OPTION, ImagesNow, Quiet

FOLDERS, FILES = "Folders of images", "Files"
TOP = 3


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a finished run.")],
    out: Annotated[
        Path | None,
        OPTION(
            metavar="FOLDER",
            help="A new folder, with one of images for each cluster.",
            rich_help_panel=FOLDERS,
        ),
    ] = None,
    copy: Annotated[
        bool, OPTION("--copy", help="Copy the images; by default, they are linked.", rich_help_panel=FOLDERS)
    ] = False,
    typical: Annotated[
        int,
        OPTION(
            min=0,
            metavar="N",
            help="Also the N most typical images of each cluster.",
            rich_help_panel=FOLDERS,
        ),
    ] = 0,
    doubtful: Annotated[
        int,
        OPTION(
            min=0, metavar="N", help="Also the N least sure images of each cluster.", rich_help_panel=FOLDERS
        ),
    ] = 0,
    sheets: Annotated[
        bool, OPTION("--sheets", help="Also a contact sheet of each cluster.", rich_help_panel=FOLDERS)
    ] = False,
    table: Annotated[
        Path | None,
        OPTION(metavar="FILE", help="A table: .csv, .json or .parquet.", rich_help_panel=FILES),
    ] = None,
    memberships: Annotated[
        bool,
        OPTION(
            "--memberships",
            help="In the table, also the share of an image's affinity that goes to its cluster, and the next "
            "clusters with theirs.",
            rich_help_panel=FILES,
        ),
    ] = False,
    top: Annotated[
        int | None,
        OPTION(
            min=1, metavar="N", help="With --memberships, N clusters. \\[default: 3]", rich_help_panel=FILES
        ),
    ] = None,
    fiftyone: Annotated[
        Path | None,
        OPTION(metavar="FILE.json", help="Labels that FiftyOne can import.", rich_help_panel=FILES),
    ] = None,
    label_studio: Annotated[
        Path | None,
        OPTION(metavar="FILE.json", help="Tasks with predictions for Label Studio.", rich_help_panel=FILES),
    ] = None,
    data: ImagesNow = None,
    quiet: Quiet = False,
) -> None:
    """Export the clusters of a finished run, with all names, merges, splits and moves.

    Nothing is written over: each folder and file must be new. Rows without images can only be exported as a
    table.
    """
    from ebsc_cli.console import ConsoleProgress
    from ebsc_core.curation.export import Export
    from ebsc_core.curation.export import export as export_run
    from ebsc_core.curation.folders import FolderOptions
    from ebsc_core.curation.image_files import image_files
    from ebsc_core.plugins.registry import Registry
    from ebsc_core.runs.store.saved import SavedRun
    from ebsc_core.utils.errors import ConfigError

    if top and not memberships:
        raise ConfigError("--top is the number of clusters that --memberships shows; give that, too")
    wanted = Export(
        out=out,
        folders=FolderOptions(copy=copy, typical=typical, doubtful=doubtful, sheets=sheets),
        table=table,
        top=(top or TOP) if memberships else 0,
        fiftyone=fiftyone,
        label_studio=label_studio,
    )
    wanted.check()
    saved = SavedRun(run, data)
    with ConsoleProgress(quiet=quiet) as shown:
        export_run(saved, wanted, lambda: image_files(saved, Registry(), shown.warn, shown.note), shown.note)

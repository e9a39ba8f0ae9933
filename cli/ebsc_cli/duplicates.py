"""Implement ``ebsc duplicates``: find images that are equal or nearly so."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ebsc_cli.flags import OPTION, DataRoot, ImagesNow, Quiet, SkipBadImages, TableOut
from ebsc_core.utils.errors import printable

if TYPE_CHECKING:
    from ebsc_core.curation.finding import Searched

# Groups on the terminal; the table has all.
SHOWN = 5


def duplicates(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|DATA",
            help="The directory of a finished run; or images: a data set, folder, .zip, .npz or .npy.",
        ),
    ],
    out: TableOut = None,
    threshold: Annotated[
        float | None,
        OPTION(
            metavar="X",
            help="The least similarity of near duplicates, up to 1. \\[default: follows from the data]",
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        OPTION(metavar="FILE.png", help="Draw the pairs just above and just below the threshold."),
    ] = None,
    data: ImagesNow = None,
    settings: Annotated[
        list[str] | None,
        OPTION("--set", metavar="data.OPTION=VALUE", help="Set any option of the data set; repeatable."),
    ] = None,
    data_root: DataRoot = None,
    skip_bad_images: SkipBadImages = None,
    quiet: Quiet = False,
) -> None:
    """Find groups of duplicates: equal images, and resized, recompressed or slightly cropped ones.

    The first image of a group is the one to keep: it has most pixels, then most bytes; of equals, it is a
    file, not a link. No file is changed. The table has a line per image: group, image, kind, similarity.
    """
    from ebsc_cli.console import ConsoleProgress
    from ebsc_core.curation.duplicates import check_threshold
    from ebsc_core.curation.finding import columns_of, find_in_data, find_in_run, images_of, read_data
    from ebsc_core.curation.image_files import folder_of_images
    from ebsc_core.curation.picture_of_pairs import check_picture, draw_pairs
    from ebsc_core.curation.tables import check_table, write_table
    from ebsc_core.plugins.registry import Registry
    from ebsc_core.runs.store.directory import check_output, is_run, own_files
    from ebsc_core.runs.store.saved import SavedRun
    from ebsc_core.utils.errors import ConfigError

    check_threshold(threshold)
    path = Path(os.path.expanduser(source))
    run = SavedRun(path, data) if is_run(path) else None
    read = [path]
    if run:
        read = [*own_files(path), *filter(None, [folder_of_images(run)])]
    if out:
        check_table(out, read)
    if picture:
        check_output(picture, read)
        check_picture(picture)
    if run and (settings or data_root or skip_bad_images):
        raise ConfigError(
            f"{source} is a run, whose images are read as the run read them; leave out the options of data"
        )
    if data is not None and not run:
        raise ConfigError(
            f"--data says where the images of a run are now, and {source} is no run; leave it out"
        )
    shown, registry = ConsoleProgress(quiet=quiet), Registry()
    with shown:
        if run:
            images = images_of(run, registry, shown)
            if picture and images is None:
                raise ConfigError("--picture needs images, and rows alone can be compared; leave it out")
            searched = find_in_run(run, images, threshold, shown)
        else:
            images = read_data(source, registry, settings or [], shown, data_root, skip_bad_images)
            searched = find_in_data(images, source, threshold, shown)
        if out:
            write_table(out, columns_of(searched.found), over=True)
        if picture and searched.images:
            draw_pairs(searched.found, searched.images, picture)
    _print_groups(shown.console, searched, "the table has all" if out else "-o FILE.csv writes all")
    for file in filter(None, (out, picture)):
        shown.console.print(f"-> {file}")


def _print_groups(console: Console, searched: Searched, rest: str) -> None:
    """Print the number of duplicates and the largest groups; ``rest`` says where the others are."""
    found, unit, say = searched.found, "images" if searched.images else "rows", console.print
    counts = f"{found.number('exact'):,} exact and {found.number('near'):,} near duplicates"
    groups = f"{len(found.groups):,} groups (threshold {found.threshold:.3f})"
    say(f"{searched.count:,} {unit}: {counts} in {groups}")
    for group in found.groups[:SHOWN]:
        others = ", ".join(f"{printable(one.image)} ({one.kind} {one.similarity:.3f})" for one in group[1:4])
        more = f" and {len(group) - 4} more" if len(group) > 4 else ""
        say(f"  {printable(group[0].image)}: {others}{more}")
    if (hidden := len(found.groups) - SHOWN) > 0:
        say(f"  and {hidden:,} more groups; {rest}")

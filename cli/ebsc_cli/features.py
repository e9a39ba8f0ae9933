"""Implement ``ebsc features``: describe a file of features, or extract features without training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ebsc_cli.completion import settings_of
from ebsc_cli.flags import (
    METHOD,
    OPTION,
    DataRoot,
    Device,
    Limit,
    Pretrained,
    Quiet,
    Seed,
    SkipBadImages,
    Weights,
)

# The sections and settings that count when nothing is trained.
USED = ("data", "backbone", "seed", "device", "precision", "cache")


def show(
    file: Annotated[
        Path, typer.Argument(metavar="RUN|FILE", help="The directory of a run, or a file of features.")
    ],
    array: Annotated[
        str | None,
        OPTION(
            metavar="NAME",
            help="The array of an .npz or .h5 file to describe. \\[default: features, or the only one]",
        ),
    ] = None,
) -> None:
    """Show the number of rows, their width, names, classes, lengths and effective rank."""
    from rich.table import Table

    from ebsc_cli.tables import plain_console
    from ebsc_core.config.loading import load_config
    from ebsc_core.data.features.store import FEATURES
    from ebsc_core.data.features.summary import feature_facts
    from ebsc_core.runs.store.saved import SavedRun
    from ebsc_core.utils.errors import printable

    path = SavedRun(file).files.file(FEATURES) if file.is_dir() else file
    chosen = load_config(flags={"features.path": str(path), "features.array": array}).features
    assert chosen
    table = Table(show_header=False)
    for name, value in feature_facts(chosen).items():
        table.add_row(name, printable(value))  # the file may be a stranger's
    plain_console().print(table)


def extract(
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="A data set's name, or a folder, .zip, .npz or .npy of images."),
    ],
    backbone: Annotated[
        str | None, OPTION(metavar="NAME", help="Any timm model by its name. \\[default: resnet18]")
    ] = None,
    pretrained: Pretrained = None,
    weights: Weights = None,
    out: Annotated[
        Path, OPTION("-o", "--out", metavar="FILE.h5", help="The file for features, names and labels.")
    ] = Path("features.h5"),
    settings: Annotated[
        list[str] | None,
        OPTION(
            "--set",
            metavar="SECTION.OPTION=VALUE",
            help="Set any option of the data set or backbone, e.g. backbone.input_size=224, or precision or "
            "cache; repeatable.",
            autocompletion=settings_of(USED),
            rich_help_panel=METHOD,
        ),
    ] = None,
    data_root: DataRoot = None,
    limit: Limit = None,
    skip_bad_images: SkipBadImages = None,
    seed: Seed = None,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Extract features of images with a backbone as it is, without training.

    `ebsc cluster FILE.h5` clusters them.
    """
    from ebsc_cli.console import ConsoleProgress
    from ebsc_cli.start import configured
    from ebsc_core.plugins.registry import Registry
    from ebsc_core.runs.extract_features import extract_features
    from ebsc_core.runs.store.directory import check_output
    from ebsc_core.utils.files import check_form

    flags = {
        "data.name": data,
        "data.root": data_root,
        "data.limit": limit,
        "data.skip_bad_images": skip_bad_images,
        "backbone.name": backbone,
        "backbone.pretrained": pretrained,
        "backbone.weights": None if weights is None else str(weights),
        "seed": seed,
        "device": device,
    }
    config = configured(None, None, settings, flags, USED)
    options = [*config.data.options.values(), *config.backbone.options.values()]  # some name files
    given = [value for value in (data, config.data.root, *options) if value and isinstance(value, str)]
    check_output(out, [Path(os.path.expanduser(value)) for value in given])
    check_form(out, ".h5", ".hdf5")
    shown = ConsoleProgress(quiet=quiet)
    with shown:
        n, width = extract_features(config, Registry(), shown, out)
    shown.note(f"{n} images, {width} features each -> {out}")

"""Implement ``ebsc resume``: finish an unfinished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ebsc_cli.flags import OPTION, OUTPUT, TRAINING, Devices, Quiet, WithReport
from ebsc_cli.process import is_first
from ebsc_cli.start import start
from ebsc_core.runs.store.unfinished import UNFINISHED, load_unfinished, outside
from ebsc_core.utils.errors import printable


def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of an unfinished run.")],
    device: Annotated[
        str | None,
        OPTION(
            metavar="NAME",
            help="The device: auto, cpu, cuda, cuda:N or mps. \\[default: as before]",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    devices: Devices = None,
    batch_size: Annotated[
        int | None,
        OPTION(
            metavar="N",
            help="Images per step, e.g. fewer if memory ran out. \\[default: as before]",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    cache: Annotated[
        str | None,
        OPTION(
            metavar="DIR",
            help="Folder that keeps trained features and the checkpoint. \\[default: as before]",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    report: WithReport = True,
    quiet: Quiet = False,
) -> None:
    """Finish a run that was stopped or killed. Training resumes from its last checkpoint.

    The run directory holds all settings, so you can call this command from any folder.
    """
    config = load_unfinished(run, {"device": device, "train.batch_size": batch_size, "cache": cache})
    if not quiet and is_first():  # the run may come from somebody else
        for setting, path in outside(config).items():
            print(printable(f"{setting} is {path}"))
    start(config, run / UNFINISHED, quiet, devices, resuming=True, with_report=report)

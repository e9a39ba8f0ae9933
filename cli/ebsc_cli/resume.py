"""``ebsc resume``: an unfinished run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ebsc_cli.start import start
from ebsc_core.runs.store.unfinished import UNFINISHED, load_unfinished

OPTION = typer.Option


def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of an unfinished run.")],
    device: Annotated[
        str | None, OPTION(help="auto, cpu, cuda, cuda:N or mps. \\[default: as before]")
    ] = None,
    devices: Annotated[
        str | None,
        OPTION(
            metavar="N|all", help="Train on so many devices of this machine, a process each. \\[default: 1]"
        ),
    ] = None,
    batch_size: Annotated[
        int | None, OPTION(help="Images per step, e.g. fewer after a lack of memory. \\[default: as before]")
    ] = None,
    quiet: Annotated[bool, OPTION("--quiet", "-q", help="Print the result and warnings only.")] = False,
) -> None:
    """Finish a run that was stopped or killed, from the training that is kept of it.

    What a run was told is in its directory, so that it is the same from another folder.
    """
    config = load_unfinished(run, {"device": device, "train.batch_size": batch_size})
    start(config, run / UNFINISHED, quiet, devices, resuming=True)

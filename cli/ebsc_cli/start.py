"""From the command line's words to a run and its result on the screen."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebsc_cli.process import is_first, leave

if TYPE_CHECKING:
    from ebsc_core.config.schema import RunConfig


def configured(
    file: Path | None,
    observers: Sequence[str] | None,
    settings: Sequence[str] | None,
    flags: Mapping[str, Any],
) -> RunConfig:
    """The configuration that a file and the command line come to.

    Raises
    ------
    ConfigError
        If something in it is unknown or ill-typed.
    """
    # Imported here, so that `ebsc --help` does not wait for it.
    from ebsc_core.config.loading import load_config
    from ebsc_core.utils.errors import ConfigError

    if not all(observers or []):
        raise ConfigError("--observer needs the name of one; see `ebsc plugins list`")
    # A table for each, which --set may fill.
    observed = [f"observers.{name}={{}}" for name in observers or []]
    return load_config(file, [*observed, *(settings or [])], flags)


def start(
    config: RunConfig,
    file: Path | None,
    quiet: bool,
    devices: str | None = None,
    resuming: bool = False,
    with_report: bool = True,
) -> None:
    """Run it, in this process or in several, and show how it goes and what comes out.

    Parameters
    ----------
    file : Path, optional
        What it was loaded from: if that is of an earlier run, other versions of parts are told.
    devices : str, optional
        On how many devices to train, a process each.
    resuming : bool
        Whether to finish the run directory that is there.
    """
    if devices is not None:
        from ebsc_core.utils.launch import launch

        status = launch(devices, config.device, ["-m", "ebsc_cli", *sys.argv[1:]])
        if status is not None:
            leave(status)  # the processes have said why

    from ebsc_cli.console import ConsoleProgress, print_result
    from ebsc_core.plugins.registry import Registry
    from ebsc_core.runs.run import run
    from ebsc_core.runs.store.compatibility import compare_suppliers
    from ebsc_core.utils.progress import Progress

    shown = ConsoleProgress(quiet=quiet or not is_first())
    progress, registry = shown if is_first() else Progress(), Registry()
    with shown:
        if file:
            compare_suppliers(file, config, registry, progress.warn)
        result, report = run(config, registry, progress, resuming=resuming), None
        if result and with_report:
            from ebsc_core.report import report_on  # which a run without one does not wait for

            report = report_on(result.directory, result.images, progress.warn)
    if result:
        print_result(shown.console, result, report)

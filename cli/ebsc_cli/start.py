"""Build a configuration from the command line, start the run and show its result."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebsc_cli.process import is_first, leave

if TYPE_CHECKING:
    from ebsc_cli.console import ConsoleProgress
    from ebsc_core.config.schema import RunConfig

# Points that deserve a look, after a result; the report has all.
MAX_ADVICE = 3


def configured(
    file: Path | None,
    observers: Sequence[str] | None,
    settings: Sequence[str] | None,
    flags: Mapping[str, Any],
    sections: Collection[str] | None = None,
) -> RunConfig:
    """Combine a configuration file and the command line into one configuration.

    Parameters
    ----------
    sections : collection of str, optional
        The sections, and settings outside sections, that the command uses; by default all.

    Raises
    ------
    ConfigError
        If a setting is unknown, is not used or has the wrong type.
    """
    # Import this here, so that `ebsc --help` does not wait for it.
    from ebsc_core.config.loading import load_config
    from ebsc_core.utils.errors import ConfigError

    if not all(observers or []):
        raise ConfigError("--observer needs the name of an observer; see `ebsc plugins list`")
    # Each observer gets an empty table; --set can fill it.
    observed = [f"observers.{name}={{}}" for name in observers or []]
    return load_config(file, [*observed, *(settings or [])], flags, sections)


def start(
    config: RunConfig,
    file: Path | None,
    quiet: bool,
    devices: str | None = None,
    resuming: bool = False,
    with_report: bool = True,
) -> None:
    """Start a run in this process or in several, and show its progress and result.

    Parameters
    ----------
    file : Path, optional
        The file of the configuration. If an earlier run wrote it, the run warns about components whose
        version has changed since.
    devices : str, optional
        The number of devices for the training, or ``all``; each device gets one process.
    resuming : bool
        Whether to finish an unfinished run directory.
    with_report : bool
        Whether to write the report.
    """
    from ebsc_core.plugins.registry import Registry
    from ebsc_core.runs.plan import check_names
    from ebsc_core.runs.store.compatibility import compare_suppliers

    registry, warnings = Registry(), list[str]()
    if file:  # it says more about a component of a recorded run that is missing
        compare_suppliers(file, config, registry, warnings.append)
    check_names(config, registry)
    if devices is not None:
        from ebsc_core.utils.launch import launch

        status = launch(devices, config.device, ["-m", "ebsc_cli", *sys.argv[1:]])
        if status is not None:
            leave(status)  # the processes have printed the reason

    # Imported here, since they import torch: mistakes that are known without it are reported before.
    from ebsc_cli.console import ConsoleProgress, print_result
    from ebsc_core.runs.run import run
    from ebsc_core.utils.progress import Progress

    shown = ConsoleProgress(quiet=quiet or not is_first())
    progress = shown if is_first() else Progress()
    with shown:
        for line in warnings:
            progress.warn(line)
        result, report = run(config, registry, progress, resuming=resuming), None
        if result and with_report:
            from ebsc_core.report import report_on  # runs without a report need not wait for this import

            report = report_on(result.directory, result.images, progress.warn)
    if result:
        print_result(shown.console, result, report)
        if not quiet:
            _print_advice(shown, result.directory, report)


def _print_advice(shown: ConsoleProgress, directory: Path, report: Path | None) -> None:
    """Print the first points of the run that deserve a second look."""
    from ebsc_core.report.advice import advice_from_figures
    from ebsc_core.runs.store.saved import SavedRun
    from ebsc_core.utils.errors import EbscError

    try:
        found = advice_from_figures(SavedRun(directory))
    except EbscError as error:  # the run is complete all the same
        shown.warn(str(error))
        return
    written_by = f"ebsc report {shlex.quote(str(directory))} writes a report of all"
    where = "see the report" if report else written_by
    for number, item in enumerate(found[:MAX_ADVICE], 1):
        left = len(found) - MAX_ADVICE if number == MAX_ADVICE else 0
        more = f"(and {left} more, {where})" if left > 0 else ""
        shown.note(" ".join(filter(None, ["worth a second look:", item.said, item.help, more])))

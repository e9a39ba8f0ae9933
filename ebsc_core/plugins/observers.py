"""Telling observers what becomes of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pluggy

from ebsc_core.plugins.hookspecs import (
    EpochFinished,
    RunFailed,
    RunFinished,
    RunHooks,
    RunStarted,
    StageFinished,
)
from ebsc_core.plugins.registry import strict
from ebsc_core.plugins.selection import Choice
from ebsc_core.plugins.validation import hooked
from ebsc_core.utils.errors import ComponentError, text_of, told


class Observers:
    """Those that a run has chosen, each behind a plugin manager of its own.

    One that raises is named in a warning and told no more; the run goes on. With ``EBSC_STRICT_PLUGINS`` its
    error ends the run.

    Parameters
    ----------
    choices : iterable of Choice
        They are built here.
    directory : Path
        The run directory to come.
    warn : callable
        Told of those that raise.

    Raises
    ------
    ComponentError
        If one cannot be built, or implements no hook or an unknown one.
    """

    def __init__(
        self, choices: Iterable[Choice] = (), directory: Path = Path(), warn: Callable[[str], None] = print
    ) -> None:
        self.directory, self.warn = directory, warn
        self.listening = [(choice, _managed(choice)) for choice in choices]

    def run_started(self, config: dict[str, Any], parts: dict[str, str]) -> None:
        self._tell("ebsc_run_started", RunStarted(self.directory, config, parts))

    def epoch_finished(self, phase: str, epoch: int, epochs: int, figures: dict[str, float]) -> None:
        self._tell("ebsc_epoch_finished", EpochFinished(self.directory, phase, epoch, epochs, figures))

    def stage_finished(self, stage: str, seconds: float) -> None:
        self._tell("ebsc_stage_finished", StageFinished(self.directory, stage, seconds))

    def run_finished(self, metrics: dict[str, Any]) -> None:
        self._tell("ebsc_run_finished", RunFinished(self.directory, metrics))

    def run_failed(self, error: BaseException) -> None:
        self._tell("ebsc_run_failed", RunFailed(self.directory, told(error)))

    def _tell(self, hook: str, event: object) -> None:
        for listener in tuple(self.listening):
            choice, manager = listener
            try:
                getattr(manager.hook, hook)(event=deepcopy(event))
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # a stranger's
                self.listening.remove(listener)
                provider = choice.component.provider
                failure = f"observer {choice.name!r} of {provider} failed in {hook} ({told(error)})"
                # An error of the run itself is worth more than one of a witness.
                if strict() and not isinstance(event, RunFailed):
                    raise ComponentError(f"{failure} (EBSC_STRICT_PLUGINS is set)") from error
                self.warn(f"{failure}; it is told no more of this run")


def _managed(choice: Choice) -> pluggy.PluginManager:
    observer = choice.build()
    try:
        return hooked(observer, RunHooks)
    except Exception as error:
        raise ComponentError(
            f"observer {choice.name!r} of {choice.component.provider} cannot be used: {text_of(error)}"
        ) from error

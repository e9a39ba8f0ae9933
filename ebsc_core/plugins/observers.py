"""Tell observers about the progress of a run."""

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
    """Hold the observers of a run, each behind a plugin manager of its own.

    If an observer raises an error, a warning names it, the observer gets no more events, and the run
    continues. With ``EBSC_STRICT_PLUGINS`` the error ends the run.

    Parameters
    ----------
    choices : iterable of Choice
        The observers, which are built here.
    directory : Path
        The directory that the run will write.
    warn : callable
        Called with one line about each observer that raises an error.

    Raises
    ------
    ComponentError
        If an observer cannot be built, or implements no hook or an unknown one.
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
            except BaseException as error:  # third-party code
                self.listening.remove(listener)
                provider = choice.component.provider
                failure = f"observer {choice.name!r} of {provider} failed in {hook} ({told(error)})"
                # The error of the run itself matters more than that of an observer.
                if strict() and not isinstance(event, RunFailed):
                    raise ComponentError(f"{failure} (EBSC_STRICT_PLUGINS is set)") from error
                self.warn(f"{failure}; it gets no more events of this run")


def _managed(choice: Choice) -> pluggy.PluginManager:
    observer = choice.build()
    try:
        return hooked(observer, RunHooks)
    except Exception as error:
        raise ComponentError(
            f"observer {choice.name!r} of {choice.component.provider} cannot be used: {text_of(error)}"
        ) from error

"""Open what every run needs before it reads anything: device, processes, directory, observers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ebsc_core.config.schema import RunConfig
from ebsc_core.plugins.faults import guarded
from ebsc_core.plugins.observers import Observers
from ebsc_core.plugins.selection import packages_of
from ebsc_core.runs.plan import Plan
from ebsc_core.runs.store.directory import RunDirectory, claim_path
from ebsc_core.runs.store.unfinished import unfinished_tables
from ebsc_core.utils.device import own_device
from ebsc_core.utils.distributed import DistributedContext
from ebsc_core.utils.progress import Progress, Stages

# The components that name a run directory.
NAMED = ("backbone", "objective", "coefficients", "clusterer")


@dataclass
class RunContext:
    """Hold what all stages of a run share."""

    plan: Plan
    requested: dict[str, Any]
    """The whole configuration as far as it is known before anything is read."""
    progress: Progress
    device: torch.device
    distributed: DistributedContext
    """The processes that train together."""
    observers: Observers
    """Of several processes, those of the first alone hear anything."""
    stage: Stages
    run_directory: RunDirectory | None
    """None in every process but the first."""

    @classmethod
    def open(
        cls,
        plan: Plan,
        source: str,
        requested: dict[str, Any],
        progress: Progress,
        resuming: bool = False,
    ) -> RunContext:
        """Join the other processes, and check the run directory; cheap mistakes show before any work.

        Parameters
        ----------
        source : str
            The data set or the file of features, which names the default directory.
        requested : dict
            See :attr:`requested`.
        resuming : bool
            Whether the run directory may hold an unfinished run.

        Raises
        ------
        EbscError
            If the device or the directory cannot be had.
        """
        config, device = plan.config, own_device(plan.config.device)
        distributed = DistributedContext.join(device)
        directory, observers = None, Observers()
        try:
            with distributed.synchronized_errors():
                if distributed.main:
                    tables = unfinished_tables(config, requested, plan.suppliers())
                    path = Path(os.path.expanduser(config.out)) if config.out else _claimed(plan, source)
                    directory = RunDirectory(path, tables, resuming, made=not config.out, warn=progress.warn)
                    observers = Observers(plan.observers.values(), path.absolute(), progress.warn)
        except BaseException:  # of this process or of another
            if directory:
                directory.release()
            raise
        stages = Stages(observers.stage_finished)
        return cls(plan, requested, progress, device, distributed, observers, stages, directory)

    @property
    def config(self) -> RunConfig:
        return self.plan.config

    @property
    def directory(self) -> RunDirectory:
        assert self.run_directory is not None  # only the first process writes
        return self.run_directory

    @contextmanager
    def observed(self) -> Iterator[None]:
        """Tell the observers that the run starts, and of an error that ends it.

        Raises
        ------
        ComponentError
            If a component wants to end the program.
        """
        with guarded(lambda: packages_of(self.plan.choices().values())):
            try:
                self.observers.run_started(self.requested, self.plan.suppliers())
                yield
            except BaseException as error:
                if self.run_directory:
                    self.run_directory.release()
                self.observers.run_failed(error)
                raise


def _claimed(plan: Plan, source: str) -> Path:
    choices = plan.choices()
    used = [section for section in NAMED if section != "objective" or plan.uses_objective()]
    names = [choices[section].name for section in used if section in choices]
    return claim_path(Path(source).stem or "data", names, plan.config.seed)

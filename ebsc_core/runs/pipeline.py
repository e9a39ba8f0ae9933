"""What every run has: a directory that appears when it is complete, observers, stages and figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ebsc_core.clustering import metrics
from ebsc_core.clustering.assign import Assigned
from ebsc_core.config.schema import PROVENANCE
from ebsc_core.data.images.run_images import RunImages
from ebsc_core.plugins.observers import Observers
from ebsc_core.runs.clustering_stage import ClusteringResult
from ebsc_core.runs.plan import Plan
from ebsc_core.runs.resolve import ResolvedClusteringSettings
from ebsc_core.runs.store.directory import RunDirectory, default_path
from ebsc_core.runs.store.unfinished import unfinished_tables
from ebsc_core.utils.device import own_device
from ebsc_core.utils.distributed import DistributedContext
from ebsc_core.utils.progress import Progress, Stages
from ebsc_core.utils.provenance import provenance
from ebsc_core.utils.system import peak_memory_mib
from ebsc_core.utils.weights import save_weights


@dataclass(frozen=True)
class RunResult:
    """What a finished run came to."""

    directory: Path
    metrics: dict[str, Any]
    images: RunImages | None = None
    """What a report can show; None of a run on features that names no images."""


class Named(Protocol):
    """Whatever has been clustered: images, or rows of a file."""

    @property
    def ids(self) -> Sequence[str]: ...

    @property
    def labels(self) -> np.ndarray | None: ...

    def label_names(self) -> list[str] | None: ...


@dataclass(frozen=True)
class Scored:
    """Images or rows with the clusters that they were given."""

    what: Named
    assigned: Assigned


class Pipeline(ABC):
    """One run. Cheap checks come first, so that a mistake costs seconds and not a training."""

    def __init__(self, plan: Plan, progress: Progress, resuming: bool = False) -> None:
        self.plan, self.config, self.progress = plan, plan.config, progress
        self.device = own_device(self.config.device)
        self.distributed = DistributedContext.join(self.device)
        with self.distributed.synchronized_errors():
            if self.distributed.main:
                path = Path(self.config.out) if self.config.out else self._own_path()
                requested = unfinished_tables(self.config, self._requested_tables(), plan.suppliers())
                self.directory = RunDirectory(path, requested, resuming)
                self.observers = Observers(plan.observers.values(), path.absolute(), progress.warn)
            else:
                self.observers = Observers()
        self.stage = Stages(self.observers.stage_finished)
        self.images: RunImages | None = None
        """Those that a report can show, once they are read."""

    def run(self) -> RunResult | None:
        """All stages, of which observers are told; of several processes the first returns a result."""
        try:
            self.observers.run_started(self._requested_tables(), self.plan.suppliers())
            result = self._run()
        except BaseException as error:
            self.observers.run_failed(error)
            raise
        if result:
            self.observers.run_finished(result.metrics)
        return result

    @abstractmethod
    def _run(self) -> RunResult | None: ...

    @abstractmethod
    def _source(self) -> Path:
        """What is clustered: a path, or the name of a data set."""

    @abstractmethod
    def _requested_tables(self) -> dict[str, Any]:
        """The whole configuration as far as it is known before anything is read."""

    def _own_path(self) -> Path:
        sections = ("backbone", "objective", "coefficients", "clusterer")
        choices = self.plan.choices()
        names = [choices[section].name for section in sections if section in choices]
        return default_path([self._source().stem or "data", *names], self.config.seed)

    def _announce_clustering(
        self, resolved: ResolvedClusteringSettings, rows: str, n: int, what: str
    ) -> None:
        plan, say = self.plan, self.progress.note
        if resolved.dictionary_size:
            say(f"dictionary    {resolved.dictionary_size} of {n} {what} are clustered; the others join them")
        form = {True: "whitened ", False: "", "choose": "plain or whitened "}[resolved.whiten]
        say(f"coefficients  {plan.coefficients.name} on {form}{rows}, {resolved.top_k} per row")
        given = "" if self.config.n_clusters else " (the number of classes)"
        count = (
            f"{resolved.n_clusters} clusters{given}" if resolved.n_clusters else "their number to be found"
        )
        say(f"clusterer     {plan.clusterer.name}, {count}")

    def _scores(self, scored: Scored) -> dict[str, Any]:
        labels, clusters = scored.what.labels, scored.assigned.clusters
        return {
            "scored_images": len(clusters),
            "scores": None if labels is None else metrics.scores(labels, clusters),
        }

    def _circumstances(self, n: int) -> dict[str, Any]:
        return {
            "images": n,
            "seconds": {name: round(value, 2) for name, value in self.stage.seconds.items()},
            "peak_memory_mib": peak_memory_mib(),
            "warnings": self.progress.warnings,
        }

    def _write(
        self,
        directory: RunDirectory,
        result: ClusteringResult,
        scored: Sequence[Scored],
        settings: dict[str, Any],
        figures: dict[str, Any],
    ) -> RunResult:
        """Everything that both kinds of runs leave; ``settings`` come on top of what was asked for."""
        made_with = provenance() | {"parts": self.plan.suppliers()} | settings.pop(PROVENANCE, {})
        with directory.writing():
            for name, module in result.modules.items():
                save_weights(module, directory.checkpoints / f"{name}.safetensors")
            directory.write_affinity(result.clustered.graph)
            directory.write_assignments(_columns(scored))
            directory.write_config(
                self._requested_tables() | result.settings() | settings | {PROVENANCE: made_with}
            )
            directory.write_metrics(figures)
        return RunResult(self.directory.path, figures, self.images)


def absolute(name: str) -> str:
    """A path as it is found from anywhere; the name of a data set as it is."""
    path = Path(name).expanduser()
    return str(path.absolute()) if path.exists() else name


def _columns(scored: Sequence[Scored]) -> dict[str, Iterable[Any]]:
    """The columns of ``assignments.csv``, fitted images before those held out; none is held as a list."""
    found = [(part.what, part.assigned) for part in scored]
    columns: dict[str, Iterable[Any]] = {
        "image": chain.from_iterable(what.ids for what, _ in found),
        "cluster": chain.from_iterable(assigned.clusters for _, assigned in found),
        "confidence": (f"{value:.4f}" for _, assigned in found for value in assigned.confidence),
    }
    if found[0][0].labels is not None:
        columns["label"] = chain.from_iterable(what.label_names() or [] for what, _ in found)
    if len(found) > 1:
        names = zip(found, ("train", "test"), strict=True)
        columns["split"] = chain.from_iterable(repeat(name, len(what.ids)) for (what, _), name in names)
    return columns

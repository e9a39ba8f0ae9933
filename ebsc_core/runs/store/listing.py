"""List the runs below a folder from their ``run.toml`` and ``metrics.json``, without heavy imports."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ebsc_core.config.loading import checked
from ebsc_core.config.schema import PROVENANCE, RunConfig
from ebsc_core.config.toml import read_toml
from ebsc_core.runs.store.directory import ASSIGNMENTS, CONFIG, METRICS, files_of
from ebsc_core.runs.store.recorded import Provenance, checked_as, moment, read_metrics
from ebsc_core.runs.store.unfinished import UNFINISHED, check_folder, is_at_work, read_unfinished
from ebsc_core.utils.errors import ConfigError, RunDirectoryError, text_of

# A folder that holds one of these files is, or was, a run directory.
SIGNS = {CONFIG, UNFINISHED, ASSIGNMENTS}
SCORES = ("acc", "nmi", "ari")
# Scored against the classes, too, but it judges the rows, not the clusters.
KNN_ACCURACY = "knn_accuracy"
FREE = ("silhouette", "eigengap", "within_cluster_mass")


@dataclass(frozen=True)
class Listed:
    """Describe a run, finished or not. An unknown value is None."""

    path: str
    state: str
    """The state: ``finished``, ``running``, ``unfinished`` or ``damaged``."""
    problem: str = ""
    """What is damaged."""
    when: str | None = None
    """The time when it was finished or, if it is unfinished, started; ISO 8601, UTC."""
    data: str | None = None
    images: int | None = None
    parts: dict[str, str] = field(default_factory=dict)
    """The components of the run, by section."""
    seed: int | None = None
    clusters: int | str | None = None
    """The number of clusters, or ``auto`` if an unfinished run has still to find it."""
    scores: dict[str, float] | None = None
    """``acc``, ``nmi`` and ``ari``, if there are labels."""
    label_free: dict[str, float | None] = field(default_factory=dict)
    seconds: float | None = None

    def record(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def list_runs(folder: Path) -> list[Listed]:
    """List all runs in a folder and its subfolders, or the folder itself if it is a run; newest first.

    Raises
    ------
    RunDirectoryError
        If the folder does not exist.
    """
    check_folder(folder, "give a folder that `ebsc run` has left runs in")
    runs = [_listed(path) for path in _runs(folder)]
    return sorted(runs, key=lambda run: run.when or "", reverse=True)


def _runs(folder: Path) -> Iterator[Path]:
    """Yield the folders of runs; skip hidden folders and the subfolders of runs."""
    for here, folders, files in os.walk(folder):
        if SIGNS.intersection(files):
            folders.clear()
            yield Path(here)
        folders[:] = [name for name in folders if not name.startswith(".")]


def _listed(path: Path) -> Listed:
    """Describe one run; a damaged run is reported as such and raises no error."""
    name, files = CONFIG, files_of(path)
    try:
        if (path / UNFINISHED).exists():
            name = UNFINISHED
            state = "running" if is_at_work(path) else "unfinished"
            return Listed(str(path), state, **_told(read_unfinished(path)))
        told = _told(read_toml(files.file(name)))
        name = METRICS
        metrics = read_metrics(files.file(name))
        sizes = metrics["label_free"].get("cluster_sizes")
        if told["clusters"] is None and sizes is not None:  # the clusterer has found the number itself
            told["clusters"] = len(sizes)
        return Listed(str(path), "finished", **told | _figures(metrics))
    except RunDirectoryError as error:
        problem = str(error)
    except (OSError, ValueError, ConfigError) as error:
        problem = text_of(error)
        if str(path / name) not in problem:
            problem = f"{path / name} is damaged ({problem})"
    return Listed(str(path), "damaged", problem, when=_changed(path))


def _told(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Collect what the configuration says about a run."""
    made_with = checked_as(Provenance, tables.get(PROVENANCE, {}))
    when = made_with.get("created", made_with.get("started"))
    config = checked({name: table for name, table in tables.items() if name != PROVENANCE})
    trains = "train" in tables and config.train.epochs > 0
    sections = ("backbone", "objective", "coefficients", "clusterer")
    names = {one: getattr(config, one).name for one in sections if trains or one != "objective"}
    return {
        "when": None if when is None else moment(when).isoformat(),
        "data": data_of(config),
        "parts": {section: name for section, name in names.items() if name},
        "seed": config.seed,
        "clusters": config.n_clusters,
    }


def data_of(config: RunConfig) -> str | None:
    """Return the data set, or the file of features, that a configuration names."""
    return config.features.path if config.features else config.data.name


def _figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the results of a finished run."""
    scores, free = metrics["scores"], metrics["label_free"]
    return {
        "images": metrics["images"],
        "scores": scores and {name: scores[name] for name in SCORES if scores.get(name) is not None},
        "label_free": {name: free[name] for name in FREE},
        "seconds": round(sum(metrics["seconds"].values()), 2),
    }


def _changed(path: Path) -> str | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    except OSError:
        return None

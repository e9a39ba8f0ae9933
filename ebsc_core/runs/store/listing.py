"""The runs below a folder, by what their ``run.toml`` and ``metrics.json`` say; nothing heavy is imported."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ebsc_core.config.loading import read_toml
from ebsc_core.config.schema import PROVENANCE
from ebsc_core.runs.store.directory import ASSIGNMENTS, CONFIG, METRICS
from ebsc_core.runs.store.unfinished import UNFINISHED, is_at_work
from ebsc_core.utils.errors import ConfigError, RunDirectoryError, text_of

# A folder that holds one of these is a run, or was.
SIGNS = {CONFIG, UNFINISHED, ASSIGNMENTS}
FREE = ("silhouette", "eigengap", "within_cluster_mass")


@dataclass(frozen=True)
class Listed:
    """A run, finished or not; what is not known is None."""

    path: str
    state: str
    """``finished``, ``running``, ``unfinished`` or ``damaged``."""
    problem: str = ""
    """What is damaged."""
    when: str | None = None
    """It was finished or, if it is not, begun; ISO 8601, UTC."""
    data: str | None = None
    images: int | None = None
    parts: dict[str, str] = field(default_factory=dict)
    """Those that took part, by section."""
    seed: int | None = None
    clusters: int | str | None = None
    """``auto`` of a run that is still to find out."""
    scores: dict[str, float] | None = None
    """``acc``, ``nmi`` and ``ari``, where there are labels."""
    label_free: dict[str, float | None] = field(default_factory=dict)
    seconds: float | None = None

    def record(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def list_runs(folder: Path) -> list[Listed]:
    """All runs in a folder and its folders, or the one that it is; newest first.

    Raises
    ------
    RunDirectoryError
        If there is no such folder.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise RunDirectoryError(f"{folder} {what}; give a folder that `ebsc run` has left runs in")
    runs = [_listed(path) for path in _runs(folder)]
    return sorted(runs, key=lambda run: run.when or "", reverse=True)


def _runs(folder: Path) -> Iterator[Path]:
    """Folders of runs, which are not looked into, as hidden ones are not."""
    for here, folders, files in os.walk(folder):
        if SIGNS.intersection(files):
            folders.clear()
            yield Path(here)
        folders[:] = [name for name in folders if not name.startswith(".")]


def _listed(path: Path) -> Listed:
    """A run; one that is damaged is only said to be."""
    name = CONFIG
    try:
        if (path / UNFINISHED).exists():
            name = UNFINISHED
            state = "running" if is_at_work(path) else "unfinished"
            return Listed(str(path), state, **_told(read_toml(path / name)))
        told = _told(read_toml(path / name))
        name = METRICS
        text = (path / name).read_text(encoding="utf-8")
        return Listed(str(path), "finished", **told | _figures(json.loads(text)))
    except ConfigError as error:
        problem = str(error)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else text_of(error)
        problem = f"{path / name} is damaged ({reason})"
    return Listed(str(path), "damaged", problem, when=_changed(path))


def _told(tables: Mapping[str, Any]) -> dict[str, Any]:
    """What the configuration says."""
    made_with = tables.get(PROVENANCE, {})
    when = made_with.get("created", made_with.get("started"))
    trains = tables["train"]["epochs"] > 0 if "train" in tables else False
    sections = ("backbone", "objective", "coefficients", "clusterer")
    chosen = [one for one in sections if one in tables and (trains or one != "objective")]
    return {
        "when": None if when is None else datetime.fromisoformat(when).astimezone(UTC).isoformat(),
        "data": data_of(tables),
        "parts": {section: str(tables[section]["name"]) for section in chosen},
        "seed": tables["seed"],
        "clusters": tables.get("n_clusters"),
    }


def data_of(tables: Mapping[str, Any]) -> str:
    """The data set, or the file of features, that a configuration names."""
    return str(tables["features"]["path"] if "features" in tables else tables["data"]["name"])


def _figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What came of it."""
    scores, free = metrics["scores"], metrics["label_free"]
    return {
        "images": metrics["images"],
        "scores": None if scores is None else {name: float(scores[name]) for name in scores},
        "label_free": {name: free[name] for name in FREE},
        "seconds": round(sum(metrics["seconds"].values()), 2),
    }


def _changed(path: Path) -> str | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    except OSError:
        return None

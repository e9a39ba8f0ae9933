"""Read a finished run from its directory."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from scipy import sparse

from ebsc_core.config.loading import load_config
from ebsc_core.config.schema import PROVENANCE, RunConfig
from ebsc_core.config.toml import read_toml
from ebsc_core.data.features.hdf5 import opened
from ebsc_core.data.features.rows import StoredRows
from ebsc_core.data.features.store import FEATURES
from ebsc_core.runs.store.decisions import Curated, Decision, apply, read_decisions
from ebsc_core.runs.store.directory import (
    AFFINITY,
    ASSIGNMENTS,
    CHECKPOINTS,
    CONFIG,
    DECISIONS,
    METRICS,
    check_finished,
    files_of,
)
from ebsc_core.runs.store.recorded import Provenance, checked_as, read_metrics
from ebsc_core.utils.errors import ConfigError, EbscError, RunDirectoryError, fault_of, text_of

T = TypeVar("T")
# The errors that reading a damaged file may raise.
DAMAGED = (
    OSError,
    OverflowError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    NotImplementedError,
    csv.Error,
    zipfile.BadZipFile,
    zlib.error,
)
# Compressed or not, a file of ours declares at most so many times the bytes that it has.
MAX_RATIO = 100


@dataclass(frozen=True)
class Assignments:
    """Hold the content of ``assignments.csv``: ``N`` images of the fit set, then those of the test set."""

    ids: list[str]
    """Paths or indices. Bytes that are not UTF-8 are surrogate escapes."""
    clusters: np.ndarray
    """``(N,)`` int64; -1 for images without a cluster."""
    confidence: np.ndarray
    """``(N,)``, shares in [0, 1]."""
    labels: list[str] | None
    """The names of the classes, if known."""
    fitted: int
    """The number of images in the fit set, which come first. The others are the test set."""


class SavedRun:
    """Read the directory that ``ebsc run`` or ``ebsc cluster`` has written; each file is read on demand.

    A file is read only if it is the one that the run has written, as the manifest says.

    Parameters
    ----------
    path : Path
    images : str, optional
        Where the images of the run are now, if they have moved.

    Raises
    ------
    RunDirectoryError
        If the directory holds no finished run. Later, if a file in it is damaged.
    """

    def __init__(self, path: Path, images: str | None = None) -> None:
        if images == "":
            raise ConfigError("the place where the images are now is empty; name one, or leave it out")
        self.path, self.images = path, images
        self.files = files_of(path)
        check_finished(path)

    @cached_property
    def tables(self) -> dict[str, Any]:
        """The content of ``run.toml``, with its provenance."""
        return self._read(CONFIG, read_toml)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Versions, time, and the supplier of each component; empty if they were not recorded."""
        tables = self.tables
        return self._read(CONFIG, lambda _: checked_as(Provenance, tables.get(PROVENANCE, {})))

    @cached_property
    def config(self) -> RunConfig:
        """The whole configuration, with all settings resolved, and with the images where they are now."""
        config = self._read(CONFIG, load_config)
        if self.images is None:
            return config
        section, option = ("features", "images") if config.features else ("data", "name")
        moved = getattr(config, section).model_copy(update={option: self.images})
        return config.model_copy(update={section: moved})

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The content of ``metrics.json``, checked as ``ebsc_core.runs.store.recorded.Metrics``."""
        return self._read(METRICS, read_metrics)

    @cached_property
    def assignments(self) -> Assignments:
        """The content of ``assignments.csv``."""
        found = self._read(ASSIGNMENTS, _read_assignments)
        for name in ("n_clusters", "top_k"):
            value = getattr(self.config, name)
            if isinstance(value, int) and value > found.fitted:
                raise RunDirectoryError(
                    f"{self.path} is damaged: {name} is {value} in {CONFIG}, and {ASSIGNMENTS} has "
                    f"{found.fitted} images"
                )
        return found

    @cached_property
    def decisions(self) -> list[Decision]:
        """What was decided about the clusters since, in its order; see ``ebsc_core.curation``."""
        return self._decided[0]

    @cached_property
    def curated(self) -> Curated:
        """The clusters after all decisions, and their names."""
        return self._decided[1]

    @property
    def next_number(self) -> int:
        """The first number that no cluster has had, in this run or in those that it took numbers from."""
        earlier = self.metrics.get("like") or {}
        return max(self.curated.highest + 1, int(earlier.get("next", 0)))

    @cached_property
    def _decided(self) -> tuple[list[Decision], Curated]:
        found, path = self.assignments, self.files.unlisted(DECISIONS)
        try:
            decisions = read_decisions(path, self.files.file(ASSIGNMENTS)) if path else []
            return decisions, apply(found.clusters, decisions)
        except (OSError, ValueError) as error:
            raise RunDirectoryError(
                f"{path} is damaged ({text_of(error)}); restore it from a copy, or remove it to have the "
                "clusters as the run found them"
            ) from None

    @property
    def rows(self) -> StoredRows:
        """The rows of the fit set that were clustered: features or embeddings."""
        express = self.config.express
        rows = self._read(FEATURES, lambda path: StoredRows(path, _stored(path, express)))
        fitted = self.assignments.fitted
        if len(rows) != fitted:
            raise RunDirectoryError(
                f"{self.path} is damaged: {FEATURES} has {len(rows)} rows, {ASSIGNMENTS} {fitted}"
            )
        return rows

    @cached_property
    def affinity(self) -> sparse.csr_matrix | None:
        """The affinity ``(M, M)`` of the dictionary's rows; None if the run did not save it."""
        if not self.files.holds(AFFINITY):
            return None
        return self._read(AFFINITY, _read_affinity)

    def has_weights(self, name: str) -> bool:
        """Return whether the run has left weights of the module ``name``."""
        return self.files.holds(f"{CHECKPOINTS}/{name}.safetensors")

    def weights(self, name: str) -> Path:
        """Return the file with the weights of the module ``name``."""
        return self.files.file(f"{CHECKPOINTS}/{name}.safetensors")

    def _read(self, name: str, read: Callable[[Path], T]) -> T:
        path = self.files.file(name)
        try:
            return read(path)
        except ConfigError as error:
            text = str(error)
            raise RunDirectoryError(text if str(path) in text else f"{path}: {text}") from None
        except EbscError:
            raise
        except DAMAGED as error:
            raise RunDirectoryError(f"{path} is damaged ({fault_of(error)})") from None


def _read_assignments(path: Path) -> Assignments:
    # A spreadsheet that has saved the file again adds a byte order mark at its start.
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = csv.reader(file)
        head = next(lines, [])
        values: list[list[str]] = [[] for _ in head]
        for line in lines:
            if len(line) != len(head):
                raise ValueError(f"line {lines.line_num} has {len(line)} entries, not {len(head)}")
            for value, column in zip(line, values, strict=True):
                column.append(value)
    columns = dict(zip(head, values, strict=True))
    clusters = np.array(columns["cluster"], dtype=np.int64)
    if clusters.min() < -1 or clusters.max() >= len(clusters):
        raise ValueError("its clusters are no numbers from 0 on, or -1 for none")
    confidence = np.array(columns["confidence"], dtype=np.float64)
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("its confidence is no share between 0 and 1")
    split = columns.get("split")
    return Assignments(
        ids=columns["image"],
        clusters=clusters,
        confidence=confidence,
        labels=columns.get("label"),
        fitted=len(clusters) if split is None else split.count("train"),
    )


def _read_affinity(path: Path) -> sparse.csr_matrix:
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MAX_RATIO * path.stat().st_size:
            raise ValueError("it declares far more than it holds")
    matrix = sparse.csr_matrix(sparse.load_npz(path))
    matrix.check_format(full_check=True)
    if matrix.dtype.kind != "f" or not np.isfinite(matrix.data).all():
        raise ValueError("its entries are no finite real numbers")
    return matrix


def _stored(path: Path, express: str) -> str:
    """Return the data set of a feature file that holds the rows of such a run."""
    with opened(path) as file:
        name = express if express in file else "features"
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name!r} is a link")
        rows = file[name]
        if isinstance(rows, h5py.Dataset):
            if rows.is_virtual or rows.external:
                raise ValueError(f"{name!r} is in another file")
            if rows.nbytes > MAX_RATIO * max(rows.id.get_storage_size(), 1):
                raise ValueError(f"{name!r} declares far more than it holds")
        return name

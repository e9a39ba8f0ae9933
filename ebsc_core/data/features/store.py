"""Store features in one HDF5 file, which also records how the features were made.

The file is written block by block under a temporary name and then renamed.

Layout: ``features`` ``(N, D)`` float32, and ``embeddings`` ``(N, E)`` float32 if an objective trained them.
The copy of a run also holds ``ids`` (UTF-8) and, if known, ``labels`` (int64). Attributes: ``format``,
``key`` (a digest of data, backbone, objective and training options) and ``made_from`` (the same in full, as
JSON).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from torch import Tensor

from ebsc_core.data.features.hdf5 import opened, written
from ebsc_core.data.features.rows import block_rows, unit_rows
from ebsc_core.utils.errors import DataError, fault_of
from ebsc_core.utils.files import written_whole

FORMAT = "ebsc-features-1"
FEATURES = "features.h5"
"""The name of the file in a run directory and in the cache."""
# Size of a chunk of the file. HDF5 holds twice as much of a data set while rows are added to it.
CHUNK_BYTES = 1 << 19
# So many names are written at a time.
NAMES = 4096


@dataclass(frozen=True)
class FeatureTable:
    """Hold the features of some images in memory."""

    features: Tensor
    """The features have shape ``(B, D)``, float32."""
    embeddings: Tensor | None
    """The embeddings have shape ``(B, E)``, float32, and unit length. They are None without a trained
    objective."""

    def expressed(self, express: str) -> Tensor:
        """Return the rows that express one another, unit length: ``features``, or ``embeddings`` if any."""
        rows = self.embeddings if express == "embeddings" else None
        return unit_rows(self.features if rows is None else rows)


class FeatureWriter:
    """Write a feature file block by block; the file gets its name only when it is complete.

    with FeatureWriter(path, key, made_from) as writer:
        for table in ...:
            writer.append(table)

    Parameters
    ----------
    ids : iterable of str, optional
        Names of all rows.
    labels : ndarray of shape (N,), optional
        Their classes, for scoring only.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        made_from: Mapping[str, Any],
        ids: Iterable[str] | None = None,
        labels: np.ndarray | None = None,
    ) -> None:
        self.path, self.key, self.made_from = path, key, made_from
        self.ids, self.labels = ids, labels

    def __enter__(self) -> FeatureWriter:
        with ExitStack() as stack:
            temporary_path = stack.enter_context(written_whole(self.path))
            self.file, self.check = stack.enter_context(written(temporary_path, "w"))
            self.file.attrs["format"] = FORMAT
            self.file.attrs["key"] = self.key
            self.file.attrs["made_from"] = json.dumps(self.made_from, sort_keys=True)
            if self.ids is not None:
                _write_identity(self.file, self.check, self.ids, self.labels)
            self.open = stack.pop_all()
        return self

    def append(self, table: FeatureTable) -> None:
        """Add rows; either all tables have embeddings or none has."""
        self._append("features", table.features)
        if table.embeddings is not None:
            self._append("embeddings", table.embeddings)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open.__exit__(kind, error, trace)

    def _append(self, name: str, rows: Tensor) -> None:
        if name not in self.file:
            width = rows.shape[1]
            chunks = (max(1, CHUNK_BYTES // (4 * max(width, 1))), max(width, 1))
            self.file.create_dataset(name, (0, width), np.float32, chunks=chunks, maxshape=(None, width))
        stored = self.file[name]
        stored.resize(len(stored) + len(rows), axis=0)
        stored[len(stored) - len(rows) :] = rows.numpy()
        self.check()


def add_identity(path: Path, ids: Iterable[str], labels: np.ndarray | None) -> None:
    """Add the names of the images, and their labels if known, to the copy of a run."""
    with written(path, "r+") as (file, check):
        _write_identity(file, check, ids, labels)


def _write_identity(
    file: h5py.File, check: Callable[[], None], ids: Iterable[str], labels: np.ndarray | None
) -> None:
    text = [name.encode("utf-8", "surrogateescape") for name in ids]
    stored = file.create_dataset("ids", len(text), h5py.string_dtype("utf-8"))
    for start in range(0, len(text), NAMES):
        stored[start : start + NAMES] = text[start : start + NAMES]
        check()
    if labels is not None:
        file["labels"] = labels


def check_features(path: Path, key: str, n_rows: int, proven: bool = False) -> None:
    """Check that a feature file is complete, has the key ``key`` and holds ``n_rows`` finite rows.

    Rows are not read if a digest has ``proven`` that the file is the one that was written: finite ones were.

    Raises
    ------
    DataError
        If the file is truncated, or has another format, another key or another number of rows.
    """
    try:
        with opened(path) as file:
            if file.attrs.get("format") != FORMAT:
                raise DataError(f"{path} is not a feature file of this version")
            if file.attrs.get("key") != key:
                raise DataError(f"{path} was made from other data or options")
            usable = _usable(file["features"], n_rows, proven) and (
                "embeddings" not in file or _usable(file["embeddings"], n_rows, proven)
            )
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} is damaged ({fault_of(error)})") from None
    if not usable:
        raise DataError(f"{path} does not hold {n_rows} rows of finite features")


def _usable(rows: h5py.Dataset, n_rows: int, proven: bool) -> bool:
    """Return whether the data set holds ``n_rows`` rows, which are finite; unless proven, read all blocks."""
    if rows.ndim != 2 or len(rows) != n_rows:
        return False
    size = block_rows(rows.shape[1])
    blocks = (rows[start : start + size] for start in range(0, n_rows, size))
    return proven or all(np.isfinite(block).all() for block in blocks)

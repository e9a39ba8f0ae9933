"""Features in HDF5: one file, written beside and renamed, that says what it was made from.

Layout: ``features`` ``(N, D)`` float32, ``embeddings`` ``(N, E)`` float32 if an objective trained them;
in a run's own copy also ``ids`` (UTF-8) and ``labels`` (int64) where known. Attributes:
``format``, ``key`` (digest of data, backbone, objective and training options) and ``made_from``
(the same in full, as JSON).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from ebsc_core.errors import DataError
from ebsc_core.files import written_whole

FORMAT = "ebsc-features-1"


def digest(made_from: Mapping[str, Any]) -> str:
    """A short hash of plain values, independent of the order of keys."""
    text = json.dumps(made_from, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


@dataclass(frozen=True)
class FeatureTable:
    """Features in memory."""

    features: Tensor
    """``(N, D)`` float32."""
    embeddings: Tensor | None
    """``(N, E)`` float32, unit length, if an objective was trained."""

    def rows(self, express: str) -> Tensor:
        """The ``features`` or ``embeddings``, each scaled to unit length."""
        chosen = self.features if express == "features" else self.embeddings
        assert chosen is not None
        return torch.nn.functional.normalize(chosen, dim=1)


def write_features(path: Path, table: FeatureTable, key: str, made_from: Mapping[str, Any]) -> None:
    """Write a feature file; it appears under its name only when complete."""
    with written_whole(path) as beside, h5py.File(beside, "w") as file:
        file.attrs["format"] = FORMAT
        file.attrs["key"] = key
        file.attrs["made_from"] = json.dumps(made_from, sort_keys=True)
        file["features"] = table.features.numpy()
        if table.embeddings is not None:
            file["embeddings"] = table.embeddings.numpy()


def add_identity(path: Path, ids: list[str], labels: np.ndarray | None) -> None:
    """Add the names (and labels, where known) of the images to a run's own copy."""
    with h5py.File(path, "a") as file:
        text = [name.encode("utf-8", "surrogateescape") for name in ids]
        file.create_dataset("ids", data=text, dtype=h5py.string_dtype("utf-8"))
        if labels is not None:
            file["labels"] = labels


def read_features(path: Path, key: str, n_rows: int) -> FeatureTable:
    """Read a feature file, checking that it is whole and made from what ``key`` says.

    Raises
    ------
    DataError
        If the file is truncated, of another format, made from something else, or of another length.
    """
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise DataError(f"{path} is not a feature file of this version")
            if file.attrs.get("key") != key:
                raise DataError(f"{path} was made from other data or options")
            features = torch.from_numpy(file["features"][:])
            embeddings = torch.from_numpy(file["embeddings"][:]) if "embeddings" in file else None
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} is damaged ({str(error).splitlines()[0]})") from None
    for rows in (features, embeddings):
        if rows is not None and (
            rows.ndim != 2 or len(rows) != n_rows or not bool(torch.isfinite(rows).all())
        ):
            raise DataError(f"{path} does not hold {n_rows} rows of finite features")
    return FeatureTable(features, embeddings)

"""Read features from ``.npy`` and ``.npz`` files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from ebsc_core.config.schema import FeaturesChoice
from ebsc_core.data.features.naming import choose_arrays, require_none
from ebsc_core.data.features.source import (
    FeatureSource,
    bytes_needed,
    check_one_per_row,
    check_rows,
    feature_source,
    texts,
)
from ebsc_core.utils.errors import DataError
from ebsc_core.utils.limits import check_size
from ebsc_core.utils.npy import ArrayHeader, read_array_header


def read_npy(path: Path, choice: FeaturesChoice) -> FeatureSource:
    """Open a ``.npy`` file; its rows stay on disk."""
    require_none(path, {"array": choice.array, "labels": choice.labels, "ids": choice.ids}, "one array")
    with path.open("rb") as file:
        header = read_array_header(file)
    shape = check_rows(path, header.shape, header.dtype)
    held = path.stat().st_size - header.offset
    if header.data_bytes > held:
        raise DataError(
            f"{path} is cut off: its header declares {header.data_bytes} bytes of data, {held} are there"
        )
    rows = np.memmap(path, header.dtype, "r", header.offset, shape, "F" if header.fortran else "C")
    return feature_source(path, shape, rows.__getitem__, None, None)


def read_npz(path: Path, choice: FeaturesChoice) -> FeatureSource:
    """Read the arrays of an ``.npz`` archive into memory."""
    with zipfile.ZipFile(path) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        key, labels, ids = choose_arrays(path, choice, list(members))
        header = _header(path, archive, members[key])
        shape = check_rows(path, header.shape, header.dtype)
        beside: list[list[str] | None] = []
        for option, name in (("labels", labels), ("ids", ids)):
            if name is not None:
                check_one_per_row(path, option, _header(path, archive, members[name]).shape, shape[0])
            beside.append(None if name is None else texts(_array(archive, members[name])))
        rows = _array(archive, members[key])
    return feature_source(path, shape, rows.__getitem__, *beside)


def _header(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> ArrayHeader:
    """Read the header of an entry, and check that its declared size is one that the entry can have."""
    with archive.open(member) as content:
        header = read_array_header(content)
    if header.offset + header.data_bytes != member.file_size:
        raise ValueError(f"the header of {member.filename!r} declares another size than the archive")
    needed = bytes_needed(header.shape, header.dtype)
    check_size(f"{path}: {member.filename!r}", needed, min(member.compress_size, path.stat().st_size))
    return header


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as content:
        return np.lib.format.read_array(content, allow_pickle=False)

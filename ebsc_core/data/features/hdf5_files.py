"""Read features from HDF5 files.

Data sets may lie in groups and are named by their paths. Nothing outside of the file is read: external
links, virtual data sets and external storage are refused.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ebsc_core.config.schema import FeaturesChoice
from ebsc_core.data.features.hdf5 import opened
from ebsc_core.data.features.hdf5_texts import read_texts
from ebsc_core.data.features.naming import IDS, LABELS, choose_arrays
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

# So many links are looked at to find the data sets of a file: about half a second.
MAX_LINKS = 3_000
# So many soft links may lead to one another.
MAX_HOPS = 16


def read_hdf5(path: Path, choice: FeaturesChoice) -> FeatureSource:
    """Open an HDF5 file; its rows stay on disk."""
    given = {option: getattr(choice, option) for option in ("array", "labels", "ids")}
    choice = choice.model_copy(update={option: name and name.strip("/") for option, name in given.items()})
    with opened(path) as file:
        names, all_of_them = dataset_names(file)
        if not all_of_them and choice.array is None:
            raise DataError(
                f"{path} has more than {MAX_LINKS} entries; name the right one with `features.array`"
            )
        known = set(names)
        names += [name for name in _possible(choice) if name not in known and _exists(file, name)]
        key, labels, ids = choose_arrays(path, choice, names)
        rows = open_dataset(path, file, key)
        shape = check_rows(path, rows.shape or (), rows.dtype)
        _check_stored(path, rows)
        beside = [
            None if name is None else _texts(path, open_dataset(path, file, name), option, shape[0])
            for option, name in (("labels", labels), ("ids", ids))
        ]

    def read(part: slice) -> np.ndarray:
        with opened(path) as again:
            return open_dataset(path, again, key)[part]

    return feature_source(path, shape, read, *beside)


def dataset_names(file: h5py.File) -> tuple[list[str], bool]:
    """Return the paths of all data sets, those near the root first, and whether these are all.

    Soft and external links are not followed, and named like data sets: :func:`open_dataset` says which of
    them can be read.
    """
    found: list[str] = []
    waiting: deque[tuple[str, h5py.Group]] = deque([("", file)])
    seen, links = {_address(file)}, 0
    while waiting:
        prefix, group = waiting.popleft()
        for name in group:
            links += 1
            if links > MAX_LINKS:
                return found, False
            here = prefix + name
            item = group[name] if isinstance(_link(group, name), h5py.HardLink) else None
            if item is None or isinstance(item, h5py.Dataset):
                found.append(here)
            elif isinstance(item, h5py.Group) and _address(item) not in seen:  # they may hold one another
                seen.add(_address(item))
                waiting.append((f"{here}/", item))
    return found, True


def open_dataset(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    """Open the data set with this path.

    Raises
    ------
    DataError
        If it does not exist, or its content lies outside of the file.
    """
    item: Any = file
    steps, hops = _steps(name), 0
    while steps:
        step = steps.pop(0)
        link = _link(item, step) if isinstance(item, h5py.Group) else None
        if link is None:
            raise DataError(f"{path} has no {name!r}, or it is a broken link")
        if isinstance(link, h5py.HardLink):
            item = item[step]
            continue
        hops += 1
        if not isinstance(link, h5py.SoftLink) or hops > MAX_HOPS:
            raise DataError(f"{path}: {name!r} is a link to another file; copy the data into this file")
        item = file if link.path.startswith("/") else item
        steps = _steps(link.path) + steps
    if not isinstance(item, h5py.Dataset):
        raise DataError(f"{path}: {name!r} is not a data set")
    if item.is_virtual or item.external:
        raise DataError(f"{path}: the content of {name!r} is in other files; copy it into this file")
    return item


def _steps(name: str) -> list[str]:
    return [step for step in name.split("/") if step not in ("", ".")]


def _link(group: h5py.Group, name: str) -> Any:
    return group.get(name, getlink=True)


def _address(item: h5py.Group) -> int:
    return h5py.h5o.get_info(item.id).addr


def _possible(choice: FeaturesChoice) -> list[str]:
    """Return the names that the choice of arrays may need; a group has several, and a file too many."""
    array = choice.array or ""
    prefix = array[: array.rfind("/") + 1]
    given = [name for name in (array, choice.labels, choice.ids) if name]
    return [*given, *(prefix + name for name in (*LABELS, *IDS))]


def _exists(file: h5py.File, name: str) -> bool:
    try:
        open_dataset(Path(), file, name)
    except DataError:
        return False
    return True


def _check_stored(path: Path, data: h5py.Dataset) -> None:
    """Check that the declared size of a data set is one that its stored size can have."""
    stored = min(data.id.get_storage_size(), path.stat().st_size)
    where = f"{path}: {data.name.lstrip('/')!r}"
    if not stored:
        raise DataError(f"{where} has no content: it was declared, but never written")
    chunk = int(np.prod(data.chunks or (), dtype=object)) * data.dtype.itemsize  # is read as a whole
    check_size(where, max(bytes_needed(data.shape, data.dtype), chunk), stored)


def _texts(path: Path, data: h5py.Dataset, option: str, n: int) -> list[str]:
    """Read a label or a name for each row."""
    check_one_per_row(path, option, data.shape or (), n)
    _check_stored(path, data)
    return texts(data[()]) if data.dtype.kind != "O" else read_texts(path, data)

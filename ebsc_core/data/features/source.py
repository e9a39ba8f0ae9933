"""Hold the rows of a file of features, with their names and labels."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ebsc_core.data.features.rows import BLOCK_ROWS, block_rows
from ebsc_core.utils.errors import DataError, fault_of, shortened
from ebsc_core.utils.limits import check_size

# Errors that reading a damaged file raises.
UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    EOFError,
    RuntimeError,
    OverflowError,
    MemoryError,
    csv.Error,
    zipfile.BadZipFile,
    zlib.error,
)
# Bytes that a row needs in any case, for its name and its place.
ROW_BYTES = 64
# What readers and other programs make of an entry that is missing.
MISSING = frozenset({"", "nan", "NaN", "None", "NaT", "<NA>", "null", "NULL"})
# Characters of a name or label. Python's reader of .csv files takes entries of up to twice as many.
MAX_TEXT = 1 << 16


class Positions(Sequence[str]):
    """Name ``n`` rows by their positions, without holding the names."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, place: Any) -> Any:
        found = range(self.n)[place]
        return [str(i) for i in found] if isinstance(found, range) else str(found)


@dataclass(frozen=True)
class FeatureSource:
    """Hold ``N`` rows of ``width`` numbers, with their names and labels."""

    name: str
    path: Path
    shape: tuple[int, int]
    read: Callable[[slice], np.ndarray]
    """The function returns the rows of a slice as they are stored."""
    ids: Sequence[str]
    named: bool
    """True if the file has names for its rows; otherwise the names are the positions."""
    labels: np.ndarray | None = None
    """The classes ``(N,)`` int64, which only the scores use."""
    class_names: tuple[str, ...] | None = None
    columns: str | None = None
    """A description of which columns of a table are used, and for what; None if the file is no table."""

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def n_classes(self) -> int | None:
        """Return the number of distinct labels, or None without labels."""
        return None if self.labels is None else len(np.unique(self.labels))

    def label_names(self) -> list[str] | None:
        """Return the class name of each row, or None without labels."""
        if self.labels is None or self.class_names is None:
            return None
        return [self.class_names[label] for label in self.labels]

    def doubts(self) -> list[str]:
        """Return, in words, which classes may be no classes."""
        found = []
        for number, name in enumerate(self.class_names or ()):
            if name.strip() in MISSING:
                count = int(np.count_nonzero(self.labels == number))
                found.append(
                    f"{count} of {len(self)} rows have the class {name!r}, which looks like a missing one: "
                    "it counts as a class of its own, in the scores and in the number of classes; to score "
                    "the other rows alone, leave these out"
                )
        return found

    def blocks(self, size: int | None = None) -> Iterator[Tensor]:
        """Yield all rows in blocks ``(B, D)`` float32 of ``size`` rows, or as many as fit in 64 MiB.

        Raises
        ------
        DataError
            If the file cannot be read, or holds NaN or infinity. The message names the first such row.
        """
        n, width = self.shape
        size = min(size or BLOCK_ROWS, block_rows(width))
        for start in range(0, n, size):
            try:
                with np.errstate(over="ignore"):  # such a value becomes infinite and is reported below
                    block = np.array(self.read(slice(start, start + size)), dtype=np.float32)
            except UNREADABLE as error:
                raise DataError(f"{self.path} cannot be read ({fault_of(error)})") from None
            good = np.isfinite(block).all(axis=1)
            if not good.all():
                row = start + int(good.argmin())
                raise DataError(
                    f"{self.path}: row {row} ({self.ids[row]!r}) holds NaN, infinity or a number too "
                    "large for float32; correct or drop such rows"
                )
            yield torch.from_numpy(block)


def check_rows(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, int]:
    """Check that an array holds real numbers ``(N, D)``, and return its shape.

    Raises
    ------
    DataError
        If it does not.
    """
    if len(shape) != 2 or dtype.kind not in "fiub":
        raise DataError(
            f"{path}: features have shape {shape} and dtype {dtype}; expected real numbers of shape (N, D)"
        )
    n, width = shape
    if not n or not width:
        raise DataError(f"{path} holds no features: its shape is {(n, width)}")
    return n, width


def check_one_per_row(path: Path, option: str, shape: tuple[int, ...], n: int) -> None:
    """Check that labels or names have shape ``(n,)`` or ``(n, 1)``.

    Raises
    ------
    DataError
        If they do not.
    """
    if shape not in ((n,), (n, 1)):
        raise DataError(f"{path}: features.{option} has shape {shape}; expected ({n},), one per row")


def bytes_needed(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Return the memory that an array needs, with the names of its rows."""
    n, *others = shape or (1,)
    each = dtype.itemsize
    for size in others:
        each *= size
    return n * max(each, ROW_BYTES)


def feature_source(
    path: Path,
    shape: tuple[int, int],
    read: Callable[[slice], np.ndarray],
    labels: Sequence[str] | None,
    ids: Sequence[str] | None,
    *,
    columns: str | None = None,
) -> FeatureSource:
    """Describe rows with their labels and names, each as one text per row.

    Raises
    ------
    DataError
        If the labels or names are far longer than the file, because many rows share a long one; or if one of
        them is no text that a run can write and read.
    """
    for option, found in (("labels", labels), ("ids", ids)):
        if found is not None:
            check_size(f"{path}: features.{option}", sum(map(len, found)), path.stat().st_size)
            for row, one in enumerate(found):
                if fault := _fault(one):
                    raise DataError(f"{path}: features.{option}, row {row} {fault}")
    names = None if labels is None else sorted(set(labels))
    numbers = {name: number for number, name in enumerate(names or ())}
    return FeatureSource(
        name=path.name,
        path=path,
        shape=shape,
        read=read,
        ids=Positions(shape[0]) if ids is None else ids,
        named=ids is not None,
        labels=None if labels is None else np.array([numbers[label] for label in labels], dtype=np.int64),
        class_names=None if names is None else tuple(names),
        columns=columns,
    )


def _fault(found: str) -> str:
    """Return why a run could not write and read a text, or an empty text if it can."""
    if len(found) > MAX_TEXT:
        return f"has {len(found):,} characters; give at most {MAX_TEXT:,}"
    try:
        found.encode("utf-8", "surrogateescape")  # a byte of a file name that is no UTF-8 is one of these
        problem = "null character" if "\0" in found else ""  # HDF5 writes none
    except UnicodeEncodeError:
        problem = "surrogate"
    return f"({shortened(found)!r}) holds a {problem}, which is no text; correct it" if problem else ""


def texts(values: np.ndarray) -> list[str]:
    """Convert values ``(N,)`` or ``(N, 1)`` to text; bytes that are not UTF-8 become surrogate escapes."""
    flat = values.reshape(-1)
    if flat.dtype.kind in "OSU":
        return [text(value) for value in flat.tolist()]
    return flat.astype(np.str_).tolist()


def text(value: Any) -> str:
    """Convert a name or label to text."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)

"""Read features from files: ``.npy``, ``.npz``, ``.h5``, ``.parquet`` and ``.csv``.

Further arrays or columns of a file may hold the names of the rows and their classes. The contents of
``.npy`` and ``.h5`` files stay on disk and are read in blocks, because they may be large.
"""

from __future__ import annotations

import csv
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from ebsc_core.config.schema import FeaturesChoice
from ebsc_core.data.features.hdf5 import opened
from ebsc_core.data.features.rows import BLOCK_ROWS
from ebsc_core.utils.errors import DataError, missing_package, text_of

# Usual names of the arrays and columns beside the features; the last one is an index of pandas.
LABELS, IDS = ("labels", "label", "class"), ("ids", "id", "image", "path", "filename", "__index_level_0__")
ROWS = ("features", "embeddings", "x", "X")
UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    RuntimeError,
    csv.Error,
    zipfile.BadZipFile,
    zlib.error,
)


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

    def blocks(self, size: int = BLOCK_ROWS) -> Iterator[Tensor]:
        """Yield all rows in blocks ``(B, D)`` float32.

        Raises
        ------
        DataError
            If the file cannot be read, or holds NaN or infinity. The message names the first such row.
        """
        for start in range(0, len(self), size):
            try:
                with np.errstate(over="ignore"):  # such a value becomes infinite and is reported below
                    block = np.array(self.read(slice(start, start + size)), dtype=np.float32)
            except UNREADABLE as error:
                raise DataError(f"{self.path} cannot be read ({text_of(error)})") from None
            with np.errstate(over="ignore", invalid="ignore"):  # also find rows whose length is not finite
                good = np.isfinite(np.einsum("ij,ij->i", block, block))
            if not good.all():
                row = start + int(good.argmin())
                raise DataError(
                    f"{self.path}: row {row} ({self.ids[row]!r}) holds NaN, infinity or a number too "
                    "large for float32; correct or drop such rows"
                )
            yield torch.from_numpy(block)


def read_features(choice: FeaturesChoice) -> FeatureSource:
    """Open a file of features; its suffix decides the type.

    Raises
    ------
    DataError
        If the file is missing or damaged, has an unknown type, or holds no features.
    ComponentError
        If the package that reads this type is missing.
    """
    path = Path(os.path.expanduser(choice.path))
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: features are read from {', '.join(READERS)}")
    try:
        return reader(path, choice)
    except UNREADABLE as error:
        raise DataError(f"{path} is not a readable {path.suffix} file ({text_of(error)})") from None


def _read_npy(path: Path, choice: FeaturesChoice) -> FeatureSource:
    rows = np.load(path, mmap_mode="r", allow_pickle=False)
    _require_none(path, {"array": choice.array, "labels": choice.labels, "ids": choice.ids}, "one array")
    return _source(path, rows, rows.__getitem__, None, None)


def _read_npz(path: Path, choice: FeaturesChoice) -> FeatureSource:
    with np.load(path, allow_pickle=False) as archive:
        key, labels, ids = _arrays(path, choice, list(archive))
        rows = np.asarray(archive[key])  # bytes, if the entry is not an array
        extra = [None if name is None else np.asarray(archive[name]) for name in (labels, ids)]
    return _source(path, rows, rows.__getitem__, *extra)


def _read_h5(path: Path, choice: FeaturesChoice) -> FeatureSource:
    with opened(path) as file:
        names = [name for name, item in file.items() if isinstance(item, h5py.Dataset)]
        key, labels, ids = _arrays(path, choice, names)
        extra = [None if name is None else np.asarray(file[name][()]) for name in (labels, ids)]

        def read(part: slice) -> np.ndarray:
            with opened(path) as again:
                return again[key][part]

        return _source(path, file[key], read, *extra)


def _arrays(path: Path, choice: FeaturesChoice, names: list[str]) -> tuple[str, str | None, str | None]:
    """Return the names of the arrays that hold the features, the labels and the row names."""
    labels = _chosen(path, "labels", choice.labels, names, LABELS)
    ids = _chosen(path, "ids", choice.ids, names, IDS)
    key = _chosen(path, "array", choice.array, names, ROWS)
    others = [name for name in names if name not in (labels, ids)]
    if key is None and len(others) != 1:
        raise DataError(
            f"{path} has no array 'features' but {', '.join(map(repr, names)) or 'none'}; "
            "name the right one with `features.array`"
        )
    return key or others[0], labels, ids


def _read_parquet(path: Path, choice: FeaturesChoice) -> FeatureSource:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_package("a .parquet file", "pyarrow", "parquet", error) from error
    try:
        table = pyarrow.parquet.read_table(path)
        columns = {name: table.column(name) for name in table.column_names}
        # pandas writes the index of a table as further columns, and notes which ones.
        noted = (table.schema.pandas_metadata or {}).get("index_columns", [])
        index = [name for name in noted if isinstance(name, str) and name in columns]
        labels, ids, others, described = _columns(path, choice, table.column_names, index)
        parts = [_parquet_numbers(path, name, columns[name]) for name in others]
        extra = [None if name is None else np.array(columns[name].to_pylist()) for name in (labels, ids)]
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} is not a readable .parquet file ({text_of(error)})") from None
    rows = np.concatenate(parts, axis=1)
    return _source(path, rows, rows.__getitem__, *extra, columns=described)


def _parquet_numbers(path: Path, name: str, column: Any) -> np.ndarray:
    """Convert a column of numbers to ``(N, 1)``, or a column of equally long lists to ``(N, D)``."""
    import pyarrow.compute

    width = 1
    if hasattr(column.type, "value_type") and len(column):
        lengths = pyarrow.compute.unique(pyarrow.compute.list_value_length(column)).to_pylist()
        if len(lengths) > 1 or not lengths[0]:
            raise DataError(f"{path}: the lists of column {name!r} must have one length, above 0")
        width, column = lengths[0], pyarrow.compute.list_flatten(column)
    values = column.to_numpy()
    if values.dtype.kind not in "fiub":
        raise DataError(_not_numeric(path, name))
    return values.reshape(-1, width)


def _read_csv(path: Path, choice: FeaturesChoice) -> FeatureSource:
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        delimiter = max(",;\t", key=file.readline().count)
        file.seek(0)
        lines: Iterator[list[str]] = filter(None, csv.reader(file, delimiter=delimiter))
        head = next(lines, [])
        if not _is_head(head):
            lines, head = chain([head], lines), [str(i) for i in range(len(head))]
        twice = [name for name in head if head.count(name) > 1]
        if twice:
            raise DataError(f"{path} has two columns called {twice[0]!r}; rename one")
        # pandas writes the index of a table as a first column without a name.
        labels, ids, others, described = _columns(path, choice, head, [""] if head[:1] == [""] else [])
        texts: list[tuple[int, list[str]]] = [
            (head.index(name), []) for name in (labels, ids) if name is not None
        ]
        rows = _numbers(path, lines, head, others, texts)
    found = iter(texts)
    extra = [None if name is None else np.array(next(found)[1]) for name in (labels, ids)]
    return _source(path, rows, rows.__getitem__, *extra, columns=described)


def _numbers(
    path: Path,
    lines: Iterable[list[str]],
    head: list[str],
    columns: list[str],
    texts: list[tuple[int, list[str]]],
) -> np.ndarray:
    """Parse the columns ``(N, D)`` float32 from the lines of a CSV; append text entries to ``texts``."""
    places, rows = [head.index(name) for name in columns], []
    for number, line in enumerate(lines):
        if len(line) != len(head):
            raise DataError(f"{path}: row {number} has {len(line)} entries, not {len(head)}")
        try:
            with np.errstate(over="ignore"):  # such a value becomes infinite; reading its block reports it
                rows.append(np.array([line[place] for place in places], dtype=np.float32))
        except ValueError:
            wrong = next(head[place] for place in places if not _is_number(line[place]))
            raise DataError(f"{path}: row {number}: {_not_numeric(path, wrong)}") from None
        for place, text in texts:
            text.append(line[place])
    return np.stack(rows) if rows else np.empty((0, len(columns)), np.float32)


def _is_head(line: list[str]) -> bool:
    """Return whether the first line names the columns.

    In such a line, some entries are not numbers, and the numbers are whole; or the entries count from 0, as
    pandas and numpy users get them from a table without names.
    """
    if len(line) > 1 and line == [str(i) for i in range(len(line))]:
        return True
    numbers = [entry for entry in line if _is_number(entry)]
    return len(numbers) < len(line) and all(entry.strip().isdecimal() for entry in numbers)


READERS: dict[str, Callable[[Path, FeaturesChoice], FeatureSource]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".h5": _read_h5,
    ".hdf5": _read_h5,
    ".parquet": _read_parquet,
    ".csv": _read_csv,
}


def _columns(
    path: Path, choice: FeaturesChoice, columns: Sequence[str], index: Sequence[str]
) -> tuple[str | None, str | None, list[str], str]:
    """Return the column of labels, the column of row names, the columns of features, and a description.

    Columns in ``index`` are no features: the first one names the rows if no other column does.
    """
    _require_none(path, {"array": choice.array}, "columns")
    labels = _chosen(path, "labels", choice.labels, columns, LABELS)
    ids = _chosen(path, "ids", choice.ids, columns, IDS)
    if ids is None:
        ids = next((name for name in index if name != labels), None)
    others = [name for name in columns if name not in (labels, ids, *index)]
    if not others:
        raise DataError(f"{path} has no columns of features")
    unused = [name for name in index if name not in (labels, ids)]
    uses = [(labels, "classes"), (ids, "names of rows"), *((name, "an index, not used") for name in unused)]
    roles = [f"{name!r}: {role}" for name, role in uses if name is not None]
    first = f"{others[0]!r} to {others[-1]!r}" if len(others) > 1 else repr(others[0])
    return labels, ids, others, "; ".join([f"{len(others)} of features ({first})", *roles])


def _chosen(
    path: Path,
    option: str,
    wanted: str | None,
    there: Sequence[str] | Mapping[str, Any],
    usual: Sequence[str],
) -> str | None:
    """Return the requested array or column, otherwise the first one with a usual name."""
    if wanted is None:
        return next((name for name in usual if name in there), None)
    if wanted not in there:
        raise DataError(
            f"{path} has no {wanted!r} (it has: {', '.join(list(there)[:20]) or 'nothing'}); name the "
            f"right one with `features.{option}`"
        )
    return wanted


def _require_none(path: Path, options: Mapping[str, str | None], holds: str) -> None:
    for option, value in options.items():
        if value is not None:
            raise DataError(f"{path} holds {holds}; leave features.{option} out")


def _source(
    path: Path,
    rows: Any,
    read: Callable[[slice], np.ndarray],
    labels: np.ndarray | None,
    ids: np.ndarray | None,
    *,
    columns: str | None = None,
) -> FeatureSource:
    """Check that the rows are numbers ``(N, D)`` with ``N`` labels and names, and describe them."""
    if len(rows.shape) != 2 or rows.dtype.kind not in "fiub":
        raise DataError(
            f"{path}: features have shape {tuple(rows.shape)} and dtype {rows.dtype}; expected real numbers "
            "of shape (N, D)"
        )
    n, width = rows.shape
    if not n or not width:
        raise DataError(f"{path} holds no features: its shape is {(n, width)}")
    for option, extra in (("labels", labels), ("ids", ids)):
        if extra is not None and extra.shape != (n,):
            raise DataError(
                f"{path}: features.{option} has shape {extra.shape}; expected ({n},), one per row"
            )
    names, classes = (None, None) if labels is None else np.unique(_texts(labels), return_inverse=True)
    return FeatureSource(
        name=path.name,
        path=path,
        shape=(n, width),
        read=read,
        ids=[str(i) for i in range(n)] if ids is None else _texts(ids).tolist(),
        named=ids is not None,
        labels=None if classes is None else classes.astype(np.int64),
        class_names=None if names is None else tuple(names.tolist()),
        columns=columns,
    )


def _texts(values: np.ndarray) -> np.ndarray:
    """Convert values to strings; bytes that are not UTF-8 become surrogate escapes."""
    if values.dtype.kind in "OS":
        decoded = (
            value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
            for value in values.tolist()
        )
        return np.array(list(decoded), dtype=np.str_)
    return values.astype(np.str_)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _not_numeric(path: Path, name: str) -> str:
    return (
        f"column {name!r} of {path} does not hold numbers; name it with `features.ids` or `features.labels`, "
        "or drop it"
    )

"""Read features from ``.parquet`` files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ebsc_core.config.schema import FeaturesChoice
from ebsc_core.data.features.naming import choose_columns
from ebsc_core.data.features.source import ROW_BYTES, FeatureSource, check_rows, feature_source, text
from ebsc_core.utils.errors import DataError, missing_package, text_of
from ebsc_core.utils.limits import check_size

VALUE_BYTES = 8  # of a number in memory, at most


def read_parquet(path: Path, choice: FeaturesChoice) -> FeatureSource:
    """Read a table into memory: columns of numbers, or columns of equally long lists of numbers."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_package("a .parquet file", "pyarrow", "parquet", error) from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            metadata, schema = file.metadata, file.schema_arrow
        _check_size(path, metadata)
        # pandas writes the index of a table as further columns, and notes which ones.
        noted = (schema.pandas_metadata or {}).get("index_columns", [])
        index = [name for name in noted if isinstance(name, str) and name in schema.names]
        labels, ids, others, described = choose_columns(path, choice, schema.names, index)
        for name in others:
            _check_type(path, name, schema.field(name).type)
        # A long text that many rows share stays one text, as it is in the file.
        shared = [field.name for field in schema if _is_text(field.type)]
        with pyarrow.parquet.ParquetFile(path, read_dictionary=shared) as file:
            table = file.read()
        table.validate(full=True)  # a damaged file has codes that no text has
        beside = [None if name is None else _texts(table.column(name)) for name in (labels, ids)]
        rows = np.concatenate([_numbers(path, name, table.column(name)) for name in others], axis=1)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} is not a readable .parquet file ({text_of(error)})") from None
    shape = check_rows(path, rows.shape, rows.dtype)
    return feature_source(path, shape, rows.__getitem__, *beside, columns=described)


def _check_size(path: Path, metadata: Any) -> None:
    """Check that the values which the file declares are ones that its real size can hold."""
    needed = metadata.num_rows * ROW_BYTES
    for group in range(metadata.num_row_groups):
        for place in range(metadata.num_columns):
            column = metadata.row_group(group).column(place)
            needed += max(VALUE_BYTES * column.num_values, column.total_uncompressed_size)
    check_size(str(path), needed, path.stat().st_size)


def _check_type(path: Path, name: str, kind: Any) -> None:
    """Check that a column holds numbers, or lists of numbers."""
    from pyarrow import types

    inner = getattr(kind, "value_type", kind)
    if not (types.is_integer(inner) or types.is_floating(inner) or types.is_boolean(inner)):
        raise DataError(_not_numeric(path, name))


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind)


def _texts(column: Any) -> list[str]:
    """Convert a column of labels or names; equal ones share their text."""
    found: list[str] = []
    for chunk in column.chunks:
        coded = chunk if hasattr(chunk, "dictionary") else chunk.dictionary_encode()
        values = [text(value) for value in coded.dictionary.to_pylist()]
        found += [str(None) if code is None else values[code] for code in coded.indices.to_pylist()]
    return found


def _numbers(path: Path, name: str, column: Any) -> np.ndarray:
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


def _not_numeric(path: Path, name: str) -> str:
    return (
        f"{path}: column {name!r} does not hold numbers; name it with `features.ids` or `features.labels`, "
        "or drop it"
    )

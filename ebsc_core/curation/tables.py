"""Write tables, such as that of the clusters of a run: .csv, .json or .parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ebsc_core.curation.memberships import memberships, sureness
from ebsc_core.curation.output import check_new, new_file, whole_file
from ebsc_core.runs.store.directory import check_output
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.errors import DataError, missing_package
from ebsc_core.utils.files import write_csv

Columns = Mapping[str, Sequence[Any]]


def table(run: SavedRun, top: int = 0) -> dict[str, Sequence[Any]]:
    """Return the columns of a table with a row for each image, after all decisions.

    They are ``image``, ``cluster`` (-1 for none), ``name`` if there are names, ``confidence``
    (:func:`ebsc_core.curation.memberships.sureness`), and ``label`` and ``split`` if the run has them.

    Parameters
    ----------
    top : int
        From 1 on: add ``share``, the share of the image's affinity that goes to its cluster, and
        ``cluster_2``, ``share_2`` and so on up to ``top``. They are None for images without affinity.

    Raises
    ------
    RunDirectoryError
        If shares are wanted and the run has not kept its affinity.
    """
    found, curated = run.assignments, run.curated
    numbers = curated.clusters.tolist()
    columns: dict[str, Sequence[Any]] = {"image": found.ids, "cluster": numbers}
    columns |= name_column(curated.names, numbers)
    columns["confidence"] = sureness(run).round(4).tolist()
    if found.labels is not None:
        columns["label"] = found.labels
    if found.fitted < len(found.ids):
        columns["split"] = ["train"] * found.fitted + ["test"] * (len(found.ids) - found.fitted)
    return columns | (_shares(run, top) if top else {})


def name_column(names: Mapping[int, str], clusters: Iterable[int]) -> dict[str, Sequence[Any]]:
    """Return the column ``name``, empty where a cluster has none; no column if no cluster has a name."""
    return {"name": [names.get(number, "") for number in clusters]} if names else {}


def _shares(run: SavedRun, top: int) -> dict[str, Sequence[Any]]:
    shared = memberships(run)
    clusters, shares = shared.ranked(run.curated.clusters, top)
    known = shared.shares.getnnz(axis=1) > 0
    columns: dict[str, Sequence[Any]] = {}
    for place in range(top):
        suffix = f"_{place + 1}" if place else ""
        there = known & (clusters[:, place] >= 0)
        if place:
            columns[f"cluster{suffix}"] = _known(clusters[:, place].tolist(), there.tolist())
        columns[f"share{suffix}"] = _known(shares[:, place].round(4).tolist(), there.tolist())
    return columns


def _known(values: list[Any], there: list[bool]) -> list[Any]:
    return [value if known else None for value, known in zip(values, there, strict=True)]


def check_table(path: Path, read: Iterable[Path] | None = None) -> None:
    """Raise an EbscError unless a table can be written to ``path``: type, place, and the package for it.

    Parameters
    ----------
    read : iterable of Path, optional
        What is read, and must not be written over; another table may be. By default, nothing may.
    """
    if path.suffix.lower() not in WRITERS:
        raise DataError(
            f"{path} is no table that can be written; give a name that ends in one of {', '.join(WRITERS)}"
        )
    if read is None:
        check_new(path)
    else:
        check_output(path, read)
    if path.suffix.lower() == ".parquet":
        _pyarrow()


def write_table(path: Path, columns: Columns, over: bool = False) -> None:
    """Write a table whole, in the form that the end of its name says.

    Parameters
    ----------
    over : bool
        Whether it may replace a table of before.

    Raises
    ------
    DataError
        If it cannot be written, or replaces what it may not.
    """
    with (whole_file if over else new_file)(path) as temporary_path:
        WRITERS[path.suffix.lower()](temporary_path, columns)


def _write_json(path: Path, columns: Columns) -> None:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _write_parquet(path: Path, columns: Columns) -> None:
    pyarrow = _pyarrow()
    values = {name: [_text(value) for value in column] for name, column in columns.items()}
    pyarrow.parquet.write_table(pyarrow.table(values), path)


def _text(value: Any) -> Any:
    """Show bytes of a file name that are no UTF-8 as ``\\xff``: a table of this type can hold no others."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_package("a .parquet file", "pyarrow", "parquet", error) from error
    return pyarrow


WRITERS: dict[str, Callable[[Path, Columns], None]] = {
    ".csv": write_csv,
    ".json": _write_json,
    ".parquet": _write_parquet,
}

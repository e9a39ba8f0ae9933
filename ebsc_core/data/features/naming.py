"""Choose which arrays or columns of a file hold the features, the labels and the names of the rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from ebsc_core.config.schema import FeaturesChoice
from ebsc_core.utils.errors import DataError

# Usual names of the arrays and columns beside the features; the last one is an index of pandas.
LABELS, IDS = ("labels", "label", "class"), ("ids", "id", "image", "path", "filename", "__index_level_0__")
ROWS = ("features", "embeddings", "x", "X")
# What pandas calls an index: nothing when it writes one, "Unnamed: 0" when it reads and writes that again,
# and the others after ``reset_index``.
INDEX = re.compile(r"|Unnamed: \d+|index|level_\d+")
# Number of names that a message lists.
LISTED = 20


def choose_arrays(
    path: Path, choice: FeaturesChoice, names: Sequence[str]
) -> tuple[str, str | None, str | None]:
    """Return the names of the arrays that hold the features, the labels and the row names.

    Arrays in groups are named by their paths, such as ``train/features``. Labels and row names with usual
    names are looked for beside the features.

    Raises
    ------
    DataError
        If a requested array is missing, or it is not clear which one holds the features.
    """
    for option, wanted in (("array", choice.array), ("labels", choice.labels), ("ids", choice.ids)):
        _require(path, option, wanted, names)
    key = choice.array or _features(path, choice, names)
    group = key.rpartition("/")[0]
    prefix = f"{group}/" if group else ""
    return key, choice.labels or _usual(names, LABELS, prefix), choice.ids or _usual(names, IDS, prefix)


def _features(path: Path, choice: FeaturesChoice, names: Sequence[str]) -> str:
    """Return the array with a usual name, or the only one that is neither labels nor names of rows."""
    if key := _usual(names, ROWS):
        return key
    others = [
        name
        for name in names
        if name not in (choice.labels, choice.ids) and _base(name) not in (*LABELS, *IDS)
    ]
    usual = [name for name in others if _base(name) in ROWS]
    for candidates in (usual, others):
        if len(candidates) == 1:
            return candidates[0]
    raise DataError(
        f"{path} has no array 'features' but {_listed(map(repr, names)) or 'none'}; name the right one with "
        "`features.array`"
    )


def choose_columns(
    path: Path, choice: FeaturesChoice, columns: Sequence[str], index: Sequence[str] = ()
) -> tuple[str | None, str | None, list[str], str]:
    """Return the column of labels, the column of row names, the columns of features, and a description.

    Columns in ``index``, and first columns with the name that pandas gives to an index, are no features: the
    first of them names the rows if no other column does.

    Raises
    ------
    DataError
        If a requested column is missing, or no column is left for the features.
    """
    require_none(path, {"array": choice.array}, "columns")
    for option, wanted in (("labels", choice.labels), ("ids", choice.ids)):
        _require(path, option, wanted, columns)
    labels, ids = choice.labels or _usual(columns, LABELS), choice.ids or _usual(columns, IDS)
    index = list(dict.fromkeys([*takewhile(INDEX.fullmatch, columns), *index]))
    if ids is None:
        ids = next((name for name in index if name != labels), None)
    used = {labels, ids, *index}
    others = [name for name in columns if name not in used]
    if not others:
        raise DataError(f"{path} has no columns of features")
    unused = [name for name in index if name not in (labels, ids)]
    uses = [(labels, "classes"), (ids, "names of rows"), *((name, "an index, not used") for name in unused)]
    roles = [f"{name!r}: {role}" for name, role in uses if name is not None]
    first = f"{others[0]!r} to {others[-1]!r}" if len(others) > 1 else repr(others[0])
    return labels, ids, others, "; ".join([f"{len(others)} of features ({first})", *roles])


def require_none(path: Path, options: Mapping[str, str | None], holds: str) -> None:
    """Raise a DataError if an option is given that has no meaning for this file."""
    for option, value in options.items():
        if value is not None:
            raise DataError(f"{path} holds {holds}; leave features.{option} out")


def _require(path: Path, option: str, wanted: str | None, there: Sequence[str]) -> None:
    if wanted is not None and wanted not in there:
        raise DataError(
            f"{path} has no {wanted!r} (it has: {_listed(there) or 'nothing'}); name the right one with "
            f"`features.{option}`"
        )


def _usual(there: Sequence[str], usual: Sequence[str], prefix: str = "") -> str | None:
    """Return the first array or column with a usual name."""
    known = set(there)
    return next((prefix + name for name in usual if prefix + name in known), None)


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    more = f", and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return ", ".join(found[:LISTED]) + more

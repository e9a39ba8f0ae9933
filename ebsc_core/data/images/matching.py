"""Match the names of rows with the names of images."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from unicodedata import normalize

import numpy as np

Key = Callable[[str], str | None]


def match_names(rows: Sequence[str], images: Sequence[str]) -> np.ndarray:
    """Return the position ``(N,)`` int64 of each row's image, or -1 for a row that has none.

    A row and an image belong together if their names are equal or, failing this, if they are equal in one
    of these ways: as normalised paths, in letters of any case, in the ends of the paths (the longest first,
    down to the base name), or in the base name without the image's suffix. In each way, the two must be
    the only names among all rows and all images, and an earlier way must not have given the image to another
    row. So no row gets an image that another row may own.
    """
    places: dict[str, int] = {name: place for place, name in enumerate(images)}
    found = np.array([places.get(name, -1) for name in rows], dtype=np.int64)
    for of_row, of_image in _ways(rows, images):
        open_rows = np.flatnonzero(found < 0)
        if not len(open_rows):
            break
        owners, owned = _unique(rows, of_row), _unique(images, of_image)
        taken = set(found.tolist())
        for row in open_rows.tolist():
            key = of_row(rows[row])
            if key in owners and key in owned and places[owned[key]] not in taken:
                found[row] = places[owned[key]]
    return found


def _ways(rows: Sequence[str], images: Sequence[str]) -> Iterator[tuple[Key, Key]]:
    """Yield pairs of functions; what they make of a row's and of an image's name may be equal."""
    yield _path, _path
    yield _folded, _folded
    depth = min(max(_folded(name).count("/") + 1 for name in names) for names in (rows, images))
    for parts in range(depth, 0, -1):
        yield partial(_end, parts), partial(_end, parts)
    yield partial(_end, 1), lambda name: posixpath.splitext(_end(1, name) or "")[0]


def _unique(names: Sequence[str], key_of: Key) -> dict[str, str]:
    """Return the name of each key that only one name has."""
    owners: dict[str, set[str]] = defaultdict(set)
    for name in names:
        if key := key_of(name):
            owners[key].add(name)
    return {key: name for key, (name, *others) in owners.items() if not others}


def _path(name: str) -> str:
    return posixpath.normpath(normalize("NFC", name).replace("\\", "/"))


def _folded(name: str) -> str:
    return normalize("NFC", _path(name).casefold())


def _end(parts: int, name: str) -> str | None:
    """Return the last parts of a path; None if it has fewer."""
    found = _folded(name).split("/")
    return "/".join(found[-parts:]) if len(found) >= parts else None

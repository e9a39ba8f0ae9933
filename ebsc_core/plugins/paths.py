"""Say what a path is that was given as a data set and that no data set reads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

ARCHIVES = frozenset({".7z", ".bz2", ".gz", ".rar", ".tar", ".tbz", ".tgz", ".txz", ".xz", ".zst"})
# Besides those of ``mimetypes``, which differ from system to system.
IMAGES = frozenset({".avif", ".heic", ".jp2", ".webp"})
TABLES = frozenset({".csv", ".h5", ".hdf5", ".parquet", ".tsv"})
# So many entries of a folder are compared with a name that is not among them.
MAX_ENTRIES = 10_000


def exists(name: str) -> bool | None:
    """Return whether there is something at a path; None if it is no path, or must not be looked at."""
    try:
        return Path(os.path.expanduser(name)).exists()
    except (OSError, ValueError):
        return None


def missing_path(name: str) -> str | None:
    """Return one line about a path that does not exist, or None if it does, or looks like a name."""
    looks_like_a_name = len(Path(os.path.expanduser(name)).parts) <= 1 and not name.endswith("/")
    if looks_like_a_name or exists(name) is not False:
        return None
    near = near_paths(name)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{name} does not exist, and no data set has this name{hint}"


def near_paths(name: str) -> list[str]:
    """Return the path in the same folder whose name is nearest to that of a missing one, if any is near."""
    path = Path(os.path.expanduser(name))
    try:
        with os.scandir(path.parent) as entries:
            there = sorted(entry.name for entry in islice(entries, MAX_ENTRIES))
    except (OSError, ValueError):
        return []
    near = [entry for entry in there if os.path.splitext(entry)[0] == path.name]  # its suffix was forgotten
    near = near or get_close_matches(path.name, there, n=1, cutoff=0.7)
    return [str(path.with_name(entry)) for entry in near[:1]]


def described_path(name: str, readable: Sequence[str]) -> str | None:
    """Return one line about a path, or None if it looks like a name.

    Parameters
    ----------
    name : str
        The text that was given.
    readable : sequence of str
        The kinds of files and folders that can be read.
    """
    if not exists(name):
        return missing_path(name)
    import mimetypes  # importing this module, as every command does, must not wait for it

    suffix = Path(os.path.expanduser(name)).suffix.lower()
    kind = mimetypes.guess_type(name)[0] or ""
    if suffix in ARCHIVES:
        return f"{name} is an archive that no data set reads; unpack it and give the folder, or give a .zip"
    if suffix in TABLES:
        return (
            f"{name} is a file of rows, not of images; `ebsc cluster` takes it if they are features, and "
            "images in arrays belong in an .npz"
        )
    if kind.startswith("image/") or suffix in IMAGES:
        return f"{name} is a single image; give the folder of all images"
    return f"{name} is a file that no data set reads; give one of: {', '.join(readable)}"

"""Write new files and folders, and nothing over what is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ebsc_core.utils.errors import DataError
from ebsc_core.utils.files import folder_written_whole, written_whole


def check_new(path: Path) -> None:
    """Raise a DataError unless nothing is at ``path`` and its folder can be written to."""
    if path.exists() or path.is_symlink():
        raise DataError(f"{path} is there already, and nothing is written over it; give another path")
    folder = Path(os.path.realpath(path)).parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        what = "cannot be written to" if folder.is_dir() else "is not there"
        raise DataError(f"the folder of {path} {what}; give another path")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; it becomes ``path`` on success. An OSError becomes a DataError."""
    with _told(path), written_whole(path) as temporary_path:
        yield temporary_path
        check_new(path)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder; it becomes ``path`` on success. An OSError becomes a DataError."""
    with _told(path), folder_written_whole(path) as temporary_path:
        yield temporary_path
        check_new(path)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}; give another path") from error

"""Files and folders that appear under their names only when complete, and room for them."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ebsc_core.errors import DataError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path beside to write to, which takes the name ``path`` on success and is gone otherwise."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """An empty folder beside to fill, which takes the name ``path`` on success and is gone otherwise."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.mkdir()
    try:
        yield beside
        beside.rename(path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def check_writable(path: Path) -> None:
    """Raise a DataError unless a file can be put there, over one that is."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; give the path of a file to write")
    folder = path.absolute().parent
    if not os.access(folder, os.W_OK):
        what = "cannot be written to" if folder.is_dir() else "is not there"
        raise DataError(f"the folder of {path} {what}; give the path of a file to write")


def reserve(path: Path, size: int) -> None:
    """Let a file take up ``size`` bytes of the disk, if it does not yet.

    Raises
    ------
    OSError
        If the disk has not so many left. The file is as it was then, or longer.
    """
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except (AttributeError, OSError) as error:
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise
            # This system cannot; whether there is room can still be asked.
            if size - path.stat().st_size > shutil.disk_usage(path.parent).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None

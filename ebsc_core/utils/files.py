"""Files and folders that appear under their names only when complete, room for them, and locks."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ebsc_core.utils.errors import DataError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path beside to write to, which takes the name ``path`` on success and is gone otherwise.

    Raises
    ------
    DataError
        If a device or a pipe has that name: a rename would put a file in place of it, for all programs.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise DataError(f"{path} is not a file; give the path of a file to write")
    # A link stays one: what it leads to is written. /dev/stdout is one, too.
    path = Path(os.path.realpath(path))
    temporary_path = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary_path
        os.replace(temporary_path, path)
    finally:
        temporary_path.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """An empty folder beside to fill, which takes the name ``path`` on success and is gone otherwise."""
    temporary_path = path.with_name(f".{path.name}.{os.getpid()}")
    temporary_path.mkdir()
    try:
        yield temporary_path
        temporary_path.rename(path)
    finally:
        shutil.rmtree(temporary_path, ignore_errors=True)


def check_writable(path: Path, read: Iterable[Path] = ()) -> None:
    """Raise a DataError unless a file can be put there, over one that is but none of those that are read."""
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "not a file"
        raise DataError(f"{path} is {what}; give the path of a file to write")
    if path.exists() and any(other.exists() and path.samefile(other) for other in read):
        raise DataError(f"{path} is read here and would be lost; give the path of another file to write")
    folder = Path(os.path.realpath(path)).parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
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


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def locked(path: Path) -> IO[bytes] | None:
    """A file, made if need be, that this process alone has until it is closed or the process ends, however.

    None if another one has it.
    """
    file = path.open("ab")
    # Someone may just be looking, see :func:`is_locked`.
    for pause in (0.0, 0.1):
        time.sleep(pause)
        if _lock(file, shared=False):
            return file
    file.close()
    return None


def is_locked(path: Path) -> bool:
    """Whether a process has the file by :func:`locked`; False where that cannot be known."""
    try:
        with path.open("rb") as file:
            return not _lock(file, shared=True)
    except OSError:
        return False


def _lock(file: IO[Any], shared: bool) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True

"""Write files and folders atomically, and lock files."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from ebsc_core.utils.errors import DataError

# Bytes in the name of a file, on the file systems that are common.
LONGEST_NAME = 255
# The suffixes of results, which no command reads as one of the images of a folder.
RESULTS = frozenset({".csv", ".h5", ".hdf5", ".html", ".json", ".parquet"})
# Suffixes that say in which form a file is; a program that opens it relies on them.
FORMS = RESULTS | {".npy", ".npz"}


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to ``path`` on success, remove it on failure.

    Raises
    ------
    DataError
        If ``path`` is a device or a pipe. A rename would replace it by a file, for all programs.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise DataError(f"{path} is not a file; give the path of a file to write")
    # Write to the target of a symbolic link, so that the link stays a link. /dev/stdout is a link, too.
    target = Path(os.path.realpath(path))
    temporary_path = _beside(target)
    temporary_path.unlink(missing_ok=True)  # nothing is written through a link that somebody has put there
    try:
        yield temporary_path
        os.replace(temporary_path, target)
    except OSError as error:
        if error.filename == str(temporary_path):  # nobody knows this name
            error.filename = str(path)
        raise
    finally:
        temporary_path.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path``; rename it to ``path`` on success, remove it on failure."""
    temporary_path = _beside(path)
    temporary_path.mkdir()
    try:
        yield temporary_path
        temporary_path.rename(path)
    finally:
        shutil.rmtree(temporary_path, ignore_errors=True)


def write_csv(path: Path, columns: Mapping[str, Iterable[Any]]) -> None:
    """Write a table from its columns; file names that are not UTF-8 keep their bytes."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        lines = csv.writer(file)
        lines.writerow(columns)
        lines.writerows(zip(*columns.values(), strict=True))


def _beside(path: Path) -> Path:
    """Return a new hidden name in the same folder, which is not too long if ``path`` is not.

    The number of the process alone is not enough: containers and machines that share a disk have equal ones.
    """
    name, room = path.name, LONGEST_NAME - 30
    if len(os.fsencode(name)) > room:  # names that differ only at their ends must stay different
        name = f"{cut_name(name, room - 40)}.{hashlib.blake2b(os.fsencode(name), digest_size=8).hexdigest()}"
    return path.with_name(f".{name}.{os.getpid()}.{uuid4().hex[:8]}")


def cut_name(name: str, size: int) -> str:
    """Return the first ``size`` bytes of a file name, or fewer where a character would be cut."""
    return os.fsencode(name)[:size].decode("utf-8", "ignore")


def check_writable(path: Path, read: Iterable[Path] = ()) -> None:
    """Raise a DataError unless a file can be written to ``path``.

    An existing file may be overwritten, but none of the files in ``read``. Below one of the folders in
    ``read``, only a result is written, old or new, as its suffix says: anything else may count as an image.
    """
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "not a file"
        raise DataError(f"{path} is {what}; give the path of a file to write")
    if other := next((other for other in read if _is_read(path, other)), None):
        if path.exists():
            raise DataError(f"{path} is read here and would be lost; give the path of another file to write")
        raise DataError(
            f"{path} is inside {other}, which is read here and where it might count as a further image; give "
            "the path of a file elsewhere"
        )
    check_folder_of(path)


def check_folder_of(path: Path) -> None:
    """Raise a DataError unless the folder in which ``path`` lies can be written to."""
    folder = Path(os.path.realpath(path)).parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        what = "cannot be written to" if folder.is_dir() else "is not there"
        raise DataError(f"the folder of {path} {what}; give another path")


def check_form(path: Path, *suffixes: str) -> None:
    """Raise a DataError if the suffix of a path says another form than the one of ``suffixes``."""
    suffix = path.suffix.lower()
    if suffix in FORMS and suffix not in suffixes:
        raise DataError(
            f"{path} would be a {suffixes[0]} file under a misleading name; give one that ends in "
            f"{' or '.join(suffixes)}"
        )


def _is_read(path: Path, read: Path) -> bool:
    if read.is_dir():
        return is_below(path, read) and Path(os.path.realpath(path)).suffix.lower() not in RESULTS
    return path.exists() and read.exists() and path.samefile(read)


def is_below(path: Path, folder: Path) -> bool:
    """Return whether a path leads into a folder, also through links."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def remove(path: Path) -> None:
    """Remove a file, or a folder with its contents, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def locked(path: Path) -> IO[bytes] | None:
    """Open a file and lock it for this process; return None if another process holds the lock.

    The file is created if it does not exist. The lock ends when the file is closed or the process ends, in
    whatever way.
    """
    file = path.open("ab")
    # Another process may just be checking the lock, see :func:`is_locked`; so try twice.
    for pause in (0.0, 0.1):
        time.sleep(pause)
        if lock(file, shared=False) is not False:
            return file
    file.close()
    return None


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of :func:`locked`; False if the system cannot tell."""
    if not path.is_file():  # opening a pipe would wait
        return False
    try:
        with path.open("rb") as file:
            return lock(file, shared=True) is False
    except OSError:
        return False


def lock(file: IO[Any], shared: bool) -> bool | None:
    """Lock an open file; return False if another process holds the lock, None if the system has no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks, as of some networks
        return None
    return True

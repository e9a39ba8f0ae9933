"""Write files and folders whole; those of an export only where nothing is yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ebsc_core.utils.errors import DataError
from ebsc_core.utils.files import check_folder_of, folder_written_whole, written_whole


def check_new(path: Path) -> None:
    """Raise a DataError unless nothing is at ``path`` and its folder can be written to."""
    if path.exists() or path.is_symlink():
        raise DataError(f"{path} is there already, and nothing is written over it; give another path")
    check_folder_of(path)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; it becomes ``path`` on success. An OSError becomes a DataError."""
    with _told(path), written_whole(path) as temporary_path:
        yield temporary_path


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path like :func:`whole_file`, unless something is at ``path``, before or after."""
    with whole_file(path) as temporary_path:
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

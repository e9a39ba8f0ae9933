"""Open HDF5 files through Python's own file layer, so that an error of the disk is an ordinary OSError.

HDF5's file layer ends the process or reports a damaged file if the disk is full, and opens nothing on a file
system without locks. Here HDF5 decides what is written where, and Python reads and writes it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from ebsc_core.utils.errors import DataError
from ebsc_core.utils.files import lock


class _Disk(io.FileIO):
    """Read and write for HDF5, and keep the first error.

    HDF5 stands no failed write: it may crash then, or when it closes the file. So it sees none. After the
    first error, memory takes what it writes, until :meth:`check` raises the error.
    """

    def __init__(self, path: Path, mode: str) -> None:
        super().__init__(path, mode)
        self.error: OSError | None = None
        self.held: list[tuple[int, bytes]] = []
        """What the disk did not take, each with its place, in the order of writing."""

    def write(self, data: Any, /) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        with self._kept():
            while left and self.error is None:
                left = left[os.write(self.fileno(), left) :]
        if left:
            self.held.append((self.tell(), bytes(left)))
            self.seek(len(left), os.SEEK_CUR)
        return size

    def truncate(self, size: int | None = None, /) -> int:
        with self._kept():
            super().truncate(size)
        return size or 0

    def readinto(self, buffer: Any, /) -> int:
        view, start = memoryview(buffer).cast("B"), self.tell()
        try:
            size = super().readinto(view) or 0
        except OSError as error:
            self.error = self.error or error
            raise
        for place, data in self.held:
            first, last = max(start, place), min(start + len(view), place + len(data))
            if first < last:
                view[first - start : last - start] = data[first - place : last - place]
                size = max(size, last - start)
        return size

    def check(self) -> None:
        """Raise the first error, if there was one."""
        if self.error is not None:
            raise self.error

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or OSError(error.errno, error.strerror, str(self.name))


@contextmanager
def written(path: Path, mode: str) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """Open a file to write (``w``) or to change (``r+``).

    Yields
    ------
    File
    callable
        Raises the first error so far. Call it now and then: after an error, memory holds what is written.

    Raises
    ------
    OSError
        At the end of the block at the latest, if something could not be written.
    """
    with _Disk(path, "w+" if mode == "w" else mode) as disk:
        with _true_errors(disk), h5py.File(disk, mode) as file:
            yield file, disk.check
        disk.check()


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open a file to read.

    It is locked like HDF5 itself does it, so that no other program changes it meanwhile. If the file system
    has no locks, nothing keeps other programs from that.

    Raises
    ------
    DataError
        If another program writes the file now.
    OSError
        If the file cannot be read.
    """
    with _Disk(path, "r") as disk:
        if lock(disk, shared=True) is False:
            raise DataError(f"{path} is being written by another program; wait for it")
        with _true_errors(disk), h5py.File(disk, "r") as file:
            yield file


@contextmanager
def _true_errors(disk: _Disk) -> Iterator[None]:
    """Raise the error of the disk, if there was one, in place of what HDF5 makes of it."""
    try:
        yield
    except Exception:
        disk.check()
        raise

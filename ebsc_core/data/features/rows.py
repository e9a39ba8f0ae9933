"""Rows that need not fit in memory: read block by block, or taken by their positions.

A run's features lie in an HDF5 file, and what goes through all of them (whitening, assigning) does so in
blocks; held in memory are only the rows that express the others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.utils.errors import DataError

# 32 MiB of 128 entries each: enough to keep a matmul busy, little beside what else a run holds.
BLOCK_ROWS = 1 << 16


class Rows(ABC):
    """``N`` float32 rows of ``width`` entries, in their order."""

    width: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def blocks(self, size: int = BLOCK_ROWS) -> Iterator[tuple[int, Tensor]]:
        """All rows, ``size`` at a time: the first one's position, and a block ``(B, D)``."""

    @abstractmethod
    def take(self, positions: np.ndarray) -> Tensor:
        """The rows at these positions ``(M,)``, in any order and as often as named, ``(M, D)``."""

    def held(self) -> Tensor:
        """All rows in memory, ``(N, D)``, where the blocks are."""
        result = torch.empty(0, self.width)
        for start, block in self.blocks():
            if start == 0:  # only a block says on which device they are
                result = block.new_empty(len(self), self.width)
            result[start : start + len(block)] = block
        return result


class HeldRows(Rows):
    """Rows ``(N, D)`` that are in memory as they are."""

    def __init__(self, rows: Tensor) -> None:
        self.rows, self.width = rows, rows.shape[1]

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self, size: int = BLOCK_ROWS) -> Iterator[tuple[int, Tensor]]:
        for start in range(0, len(self), size):
            yield start, self.rows[start : start + size]

    def take(self, positions: np.ndarray) -> Tensor:
        return self.rows[torch.from_numpy(positions).to(self.rows.device)]

    def held(self) -> Tensor:
        return self.rows


class StoredRows(Rows):
    """Rows of an HDF5 file, each scaled to unit length as it is read (zeros stay zero), on the CPU.

    The file is open only while rows are read: it can be written to in between.

    Raises
    ------
    DataError
        If the file cannot be read, now or later, or holds NaN or infinity.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        with self._opened() as rows:
            if not isinstance(rows, h5py.Dataset) or rows.ndim != 2 or rows.dtype.kind not in "fiub":
                raise ValueError(f"{name!r} holds no rows of real numbers")
            self.n, self.width = rows.shape

    def __len__(self) -> int:
        return self.n

    def blocks(self, size: int = BLOCK_ROWS) -> Iterator[tuple[int, Tensor]]:
        with self._opened() as rows:
            for start in range(0, self.n, size):
                yield start, _unit(rows[start : start + size])

    def take(self, positions: np.ndarray) -> Tensor:
        order = np.argsort(positions, kind="stable")
        wanted = positions[order]
        result = torch.empty(len(positions), self.width)
        with self._opened() as rows:
            # HDF5 takes long over scattered rows: the span of those wanted of a block is read as a whole.
            for part in np.split(order, np.flatnonzero(np.diff(wanted // BLOCK_ROWS)) + 1):
                if len(part):
                    first, last = positions[part[0]], positions[part[-1]]
                    result[part] = _unit(rows[first : last + 1][positions[part] - first])
        return result

    @contextmanager
    def _opened(self) -> Iterator[h5py.Dataset]:
        try:
            with h5py.File(self.path, "r") as file:
                yield file[self.name]
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"{self.path} cannot be read ({str(error).splitlines()[0]})") from None


class MappedRows(Rows):
    """Other rows, each block mapped on its way: moved to a device, whitened."""

    def __init__(self, rows: Rows, change: Callable[[Tensor], Tensor]) -> None:
        self.rows, self.change, self.width = rows, change, rows.width

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self, size: int = BLOCK_ROWS) -> Iterator[tuple[int, Tensor]]:
        return ((start, self.change(block)) for start, block in self.rows.blocks(size))

    def take(self, positions: np.ndarray) -> Tensor:
        return self.change(self.rows.take(positions))


def unit_rows(rows: Tensor, in_place: bool = False) -> Tensor:
    """Scale rows ``(B, D)`` to unit length; rows of zeros stay zero."""
    return F.normalize(rows, dim=1, out=rows if in_place else None)


def _unit(rows: np.ndarray) -> Tensor:
    """Return the rows as float32 of unit length, in place if they are float32 already."""
    read = unit_rows(torch.from_numpy(np.asarray(rows, dtype=np.float32)), in_place=True)
    if not read.sum().isfinite():  # rows of unit length have a finite one
        raise ValueError("a row holds NaN or infinity")
    return read

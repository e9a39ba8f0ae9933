"""Access rows that may not fit in memory, block by block or by position.

The features of a run are in an HDF5 file. Whitening and out-of-sample assignment read all of them in
blocks. Only the dictionary, the rows that express the others, is held in memory.
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

from ebsc_core.data.features.hdf5 import opened
from ebsc_core.utils.errors import DataError, fault_of

# A block keeps a matmul busy and needs little memory compared with the rest of a run: it has at most so many
# rows, or, if they are wider than 256 entries, so many bytes.
BLOCK_ROWS, BLOCK_BYTES = 1 << 16, 64 << 20
# Between these sizes of a row's largest entry, neither its squares nor torch's smallest norm (1e-12) matter.
MAX_ENTRY, MIN_ENTRY = 1e15, 1e-6


def block_rows(width: int) -> int:
    """Return how many rows of ``width`` entries a block has by default."""
    return min(BLOCK_ROWS, max(1, BLOCK_BYTES // (4 * width)))


class Rows(ABC):
    """Give access to ``N`` float32 rows of ``width`` entries."""

    width: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def blocks(self, size: int | None = None) -> Iterator[tuple[int, Tensor]]:
        """Yield all rows in blocks of ``size``: the position of the first row, and the block ``(B, D)``.

        The size is :func:`block_rows` of the width by default.
        """

    @abstractmethod
    def take(self, positions: np.ndarray) -> Tensor:
        """Return the rows ``(M, D)`` at positions ``(M,)``, in any order; positions may repeat."""

    def held(self) -> Tensor:
        """Return all rows in memory, ``(N, D)``, on the device of the blocks."""
        result = torch.empty(0, self.width)
        for start, block in self.blocks():
            if start == 0:  # only a block tells the device
                result = block.new_empty(len(self), self.width)
            result[start : start + len(block)] = block
        return result


class HeldRows(Rows):
    """Hold rows ``(N, D)`` in memory."""

    def __init__(self, rows: Tensor) -> None:
        self.rows, self.width = rows, rows.shape[1]

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self, size: int | None = None) -> Iterator[tuple[int, Tensor]]:
        size = size or block_rows(self.width)
        for start in range(0, len(self), size):
            yield start, self.rows[start : start + size]

    def take(self, positions: np.ndarray) -> Tensor:
        return self.rows[torch.from_numpy(positions).to(self.rows.device)]

    def held(self) -> Tensor:
        return self.rows


def doubt_of_zeros(zeros: int, n: int) -> str:
    """Say, for a warning, what ``zeros`` rows of zeros among ``n`` mean."""
    return (
        f"{zeros} of {n} rows are all zeros: they have no direction, so their cluster says nothing; leave "
        "them out if they stand for images that failed"
    )


class StoredRows(Rows):
    """Read rows of an HDF5 file to the CPU and scale each row to unit length; rows of zeros stay zero.

    The file is open only while rows are read. Other code can write to it in between.

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

    def blocks(self, size: int | None = None) -> Iterator[tuple[int, Tensor]]:
        size = size or block_rows(self.width)
        with self._opened() as rows:
            for start in range(0, self.n, size):
                yield start, _unit(rows[start : start + size])

    def take(self, positions: np.ndarray) -> Tensor:
        order = np.argsort(positions, kind="stable")
        wanted = positions[order]
        result = torch.empty(len(positions), self.width)
        with self._opened() as rows:
            # HDF5 reads scattered rows slowly. So read, for each block, the whole span of the wanted rows.
            for part in np.split(order, np.flatnonzero(np.diff(wanted // block_rows(self.width))) + 1):
                if len(part):
                    first, last = positions[part[0]], positions[part[-1]]
                    result[part] = _unit(rows[first : last + 1][positions[part] - first])
        return result

    @contextmanager
    def _opened(self) -> Iterator[h5py.Dataset]:
        try:
            with opened(self.path) as file:
                yield file[self.name]
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"{self.path} cannot be read ({fault_of(error)})") from None


class MappedRows(Rows):
    """Map each block of other rows when it is read, for instance to a device or by whitening.

    ``width`` is that of the mapped rows; by default the change keeps the width.
    """

    def __init__(self, rows: Rows, change: Callable[[Tensor], Tensor], width: int | None = None) -> None:
        self.rows, self.change, self.width = rows, change, width or rows.width

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self, size: int | None = None) -> Iterator[tuple[int, Tensor]]:
        size = size or block_rows(max(self.width, self.rows.width))
        return ((start, self.change(block)) for start, block in self.rows.blocks(size))

    def take(self, positions: np.ndarray) -> Tensor:
        # In blocks, because the change may need several times the memory of what it returns.
        parts = SelectedRows(self.rows, positions)
        if len(parts) <= block_rows(max(self.width, self.rows.width)):
            return self.change(self.rows.take(positions))
        return MappedRows(parts, self.change, self.width).held()


class SelectedRows(Rows):
    """Give access to the rows at positions ``(M,)`` of other rows, which are read when they are wanted."""

    def __init__(self, rows: Rows, positions: np.ndarray) -> None:
        self.rows, self.positions, self.width = rows, positions, rows.width

    def __len__(self) -> int:
        return len(self.positions)

    def blocks(self, size: int | None = None) -> Iterator[tuple[int, Tensor]]:
        size = size or block_rows(self.width)
        for start in range(0, len(self), size):
            yield start, self.rows.take(self.positions[start : start + size])

    def take(self, positions: np.ndarray) -> Tensor:
        return self.rows.take(self.positions[positions])


def unit_rows(rows: Tensor, in_place: bool = False) -> Tensor:
    """Scale rows ``(B, D)`` to unit length; rows of zeros stay zero.

    Rows of any finite length keep their direction. Squares of very large or very small float32 entries are
    not floats, so such rows are first scaled by a power of two, which changes no digit of the result.
    """
    largest = torch.linalg.vector_norm(rows.detach(), torch.inf, dim=1, keepdim=True)
    extreme = (largest > MAX_ENTRY) | ((largest < MIN_ENTRY) & (largest > 0))
    if bool(extreme.any()):
        exponent = torch.frexp(largest).exponent.where(extreme, 0)
        # In two halves: a single factor may be too large for a float.
        half = exponent // 2
        rows = torch.ldexp(torch.ldexp(rows, -half), half - exponent)
    return F.normalize(rows, dim=1, out=rows if in_place else None)


def _unit(rows: np.ndarray) -> Tensor:
    """Scale rows to unit length as float32; float32 rows are changed in place."""
    read = unit_rows(torch.from_numpy(np.asarray(rows, dtype=np.float32)), in_place=True)
    if not read.sum().isfinite():  # rows of unit length have a finite sum
        raise ValueError("a row holds NaN or infinity")
    return read

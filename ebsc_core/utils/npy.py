"""Read the header of an array in NumPy's format, which may lie."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import IO

import numpy as np

MAX_DIMENSIONS = 64  # NumPy has no more


@dataclass(frozen=True)
class ArrayHeader:
    """Hold what the header of an array in NumPy's format declares."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    offset: int
    """The position of the data after the start of the file."""

    @property
    def data_bytes(self) -> int:
        size = self.dtype.itemsize
        for n in self.shape:
            size *= n
        return size


def read_array_header(file: IO[bytes], what: str = "its array") -> ArrayHeader:
    """Read the header of an array, which its data follow.

    Parameters
    ----------
    what : str
        The array in messages.

    Raises
    ------
    ValueError
        If the header is damaged, or the array holds Python objects.
    """
    form = np.lib.format
    with warnings.catch_warnings():  # of Python's parser, which reads what a stranger wrote
        warnings.simplefilter("ignore")
        try:
            first = form.read_magic(file) == (1, 0)
            read = form.read_array_header_1_0 if first else form.read_array_header_2_0
            shape, fortran, dtype = read(file)
        except Exception:  # the parser raises errors of almost any type
            raise ValueError(f"the header of {what} is damaged") from None
    if dtype.hasobject:
        raise ValueError(
            f"{what} holds pickled Python objects, which are never loaded; save it as a plain numeric array"
        )
    if len(shape) > MAX_DIMENSIONS or not all(0 <= n < 1 << 63 for n in shape):
        raise ValueError(f"the header of {what} declares an impossible shape")
    return ArrayHeader(shape, fortran, dtype, file.tell())

"""Read the images of a list of paths, brought to one size as those of a folder are."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from os import PathLike
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np

from ebsc_core.data.images.decoding import ImageHeader, common_shape, decode_image, read_header
from ebsc_core.data.images.workers import BadImage
from ebsc_core.utils.errors import DataError, printable, text_of
from ebsc_core.utils.system import available_memory

T = TypeVar("T")


def read_paths(
    paths: Sequence[str | PathLike[str]], size: int | None = None, largest: int | None = None
) -> np.ndarray:
    """Read image files into pixels ``(N, C, H, W)`` uint8; :func:`common_shape` decides their size.

    Raises
    ------
    DataError
        If a file cannot be read, or if the images do not fit in memory.
    """
    files = [Path(os.path.expanduser(path)) for path in paths]
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")  # PIL warns of odd but readable files
        shape = common_shape(list(pool.map(_header, files)), size, largest)
        check_memory(len(files), prod(shape))
        pixels = np.empty((len(files), *shape), np.uint8)
        for position, image in enumerate(pool.map(lambda file: _decoded(file, shape), files)):
            pixels[position] = image
    return pixels


def check_memory(n: int, each: int) -> None:
    """Raise a DataError if ``n`` images of ``each`` bytes do not fit in memory."""
    available = available_memory()
    if available is not None and n * each > available:
        raise DataError(
            f"{n} images need {n * each / 2**30:.1f} GiB, {available / 2**30:.1f} GiB are free; give the "
            "path of a folder of them, from which they can be streamed"
        )


def _header(path: Path) -> ImageHeader:
    header = _read(path, lambda file, _: read_header(file))
    if isinstance(header, BadImage):
        raise _unreadable(path, header)
    return header


def _decoded(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    return _read(path, lambda file, stored: decode_image(file, stored, shape))


def _read(path: Path, of: Callable[[BinaryIO, int], T]) -> T:
    """Call ``of`` with the open file and its size."""
    try:
        if path.exists() and not path.is_file():  # a pipe might never end
            raise BadImage("not a regular file")
        with path.open("rb") as file:
            return of(file, path.stat().st_size)
    except (OSError, ValueError, BadImage) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"cannot read image {printable(str(path))} ({text_of(error)}); repair it or leave it out"
    )

"""Locate arrays of images in a file, and read single images from arrays that stay on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from zipfile import ZIP_STORED, ZipFile

import numpy as np
from PIL import Image

from ebsc_core import BadImage, DataError, ImageReader, channels_first, fit_image, to_uint8
from ebsc_plugins.datasets.files import member_start


@dataclass(frozen=True)
class StoredArray:
    """Describe an array in an ``.npz`` archive, as its header does."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    checksum: int
    """The CRC-32 of the array."""
    offset: int | None
    """The position of the data in the file; None for compressed or encrypted data, or Python objects."""

    def bytes_held(self) -> int:
        """Return the bytes needed to read the whole array: the array, and its pixels as uint8 twice."""
        return int(np.prod(self.shape)) * (self.dtype.itemsize + 2)


def find_array(path: Path, archive: ZipFile, key: str) -> StoredArray:
    """Locate an array of the archive.

    Raises
    ------
    ValueError, OSError, RuntimeError, BadZipFile
        If the header of the array is damaged or encrypted.
    """
    form, members = np.lib.format, archive.NameToInfo
    member = members[key if key in members else f"{key}.npy"]
    with archive.open(member) as content:
        first = form.read_magic(content) == (1, 0)
        shape, fortran, dtype = (form.read_array_header_1_0 if first else form.read_array_header_2_0)(content)
        header = content.tell()
    offset = None
    if member.compress_type == ZIP_STORED and not dtype.hasobject:
        with path.open("rb") as file:
            offset = member_start(file, member.header_offset) + header
    return StoredArray(path, shape, dtype, fortran, member.CRC, offset)


class ArrayReader(ImageReader):
    """Read single images of an array on disk; map it into memory only while one image is copied.

    Raises
    ------
    DataError
        If the array does not have the shape or dtype of images.
    """

    def __init__(self, stored: StoredArray, size: int | None) -> None:
        self.stored, self.size = stored, size
        nothing = np.broadcast_to(np.zeros((), stored.dtype), stored.shape)
        channels, height, width = channels_first(stored.path, nothing).shape[1:]
        self.shape = (channels, size or height, size or width)

    def name(self, position: int) -> str:
        return str(position)

    def where(self, position: int) -> str:
        return f"{position} of {self.stored.path}"

    def read(self, position: int) -> np.ndarray:
        stored = self.stored
        order: Literal["F", "C"] = "F" if stored.fortran else "C"
        try:
            rows = np.memmap(stored.path, stored.dtype, "r", stored.offset or 0, stored.shape, order)
            pixels = to_uint8(stored.path, np.array(rows[position : position + 1]))
        except (OSError, ValueError, DataError) as error:
            raise BadImage(str(error)) from None
        return resize(pixels, self.size)[0]

    def mark(self, positions: np.ndarray) -> bytes:
        return (
            f"{self.stored.checksum} {self.stored.shape} {self.stored.dtype}".encode() + positions.tobytes()
        )


def resize(pixels: np.ndarray, size: int | None) -> np.ndarray:
    """Resize to ``(N, C, size, size)``, with the same filter as for images of a folder."""
    if size is None or pixels.shape[2:] == (size, size) or not pixels.size:
        return pixels
    resized = np.empty((*pixels.shape[:2], size, size), dtype=np.uint8)
    for image, channels in zip(pixels, resized, strict=True):
        picture = Image.fromarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1))
        channels[:] = fit_image(picture, (size, size))
    return resized

"""Locate arrays of images in a file, and read single images from arrays that stay on disk."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal
from zipfile import ZIP_STORED, ZipFile

import numpy as np
import torch
from PIL import Image
from pydantic import Field

from ebsc_core import (
    ArrayHeader,
    BadImage,
    DataContext,
    DataError,
    ImageReader,
    ImageSet,
    ImageSource,
    Options,
    StreamedImages,
    Workers,
    channels_first,
    fault_of,
    fit_image,
    opaque_channels,
    read_array_header,
    sample_positions,
    to_uint8,
)
from ebsc_plugins.datasets.files import member_start

# A compressed array of more bytes than FREE must be large in its archive, too. Real images, drawings
# included, stay below the ratio, and nothing but equal values is above it.
FREE, RATIO = 2**26, 200


class ArrayOptions(Options):
    """Configure how an array of images is read."""

    size: int | None = Field(None, ge=4)
    """Every image is scaled and cropped to this side, in pixels: the shorter side is scaled, and the centre
    is kept. By default, images keep their size."""
    stream: Literal[True, False, "auto"] = "auto"
    """Images are read when a batch needs them, instead of all at the start. By default, this happens if
    they do not fit in memory. Only uncompressed arrays can be streamed."""


@dataclass(frozen=True)
class StoredArray:
    """Describe an array in a ``.npy`` file or an ``.npz`` archive, as its header does."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    checksum: int
    """A number that changes with the array: its CRC-32 in an archive."""
    offset: int | None
    """The position of the data in the file; None for compressed data."""

    def bytes_held(self, n: int) -> int:
        """Return the bytes needed to read ``n`` images: their values, and their pixels as uint8 twice.

        An array that cannot be mapped into memory is read whole, however few images of it are wanted.
        """
        read = n if self.offset is not None else self.shape[0]
        return math.prod(self.shape[1:]) * (read * self.dtype.itemsize + 2 * n)

    def mapped(self) -> np.ndarray:
        """Map the array into memory, from where its images are read when they are copied.

        Raises
        ------
        OSError, ValueError
            If the file has changed.
        """
        order: Literal["F", "C"] = "F" if self.fortran else "C"
        return np.memmap(self.path, self.dtype, "r", self.offset or 0, self.shape, order)


def find_array(path: Path, archive: ZipFile, key: str) -> StoredArray:
    """Locate an array of an ``.npz`` archive.

    Raises
    ------
    ValueError, OSError, RuntimeError, BadZipFile
        If the array is encrypted or holds Python objects, its header is damaged or does not fit its data, or
        the archive is too small for it.
    """
    members = archive.NameToInfo
    member = members[key if key in members else f"{key}.npy"]
    if member.file_size > max(FREE, RATIO * member.compress_size):
        packed, unpacked = member.compress_size / 2**20, member.file_size / 2**20
        raise ValueError(
            f"array {key!r} would unpack from {packed:.1f} MiB to {unpacked:.0f} MiB, more than images do; "
            "if it is right, save it with numpy.savez"
        )
    with archive.open(member) as content:
        header = _header(content, member.file_size, f"array {key!r}")
    offset = None
    if member.compress_type == ZIP_STORED:
        with path.open("rb") as file:
            start = member_start(file, member.header_offset)
        if start + member.file_size > path.stat().st_size:
            raise ValueError(f"it is too short for array {key!r}")
        offset = start + header.offset
    return StoredArray(path, header.shape, header.dtype, header.fortran, member.CRC, offset)


def find_npy(path: Path) -> StoredArray:
    """Locate the array of a ``.npy`` file.

    Raises
    ------
    ValueError, OSError
        If the header is damaged or does not fit the data, or the array holds Python objects.
    """
    state = path.stat()
    with path.open("rb") as content:
        header = _header(content, state.st_size, "the array")
    return StoredArray(path, header.shape, header.dtype, header.fortran, state.st_mtime_ns, header.offset)


def _header(content: IO[bytes], size: int, what: str) -> ArrayHeader:
    """Read the header of an array that takes ``size`` bytes, and check that it declares as many."""
    header = read_array_header(content, what)
    if header.data_bytes != size - header.offset:
        raise ValueError(f"{what} declares {header.data_bytes} bytes and holds {size - header.offset}")
    if not header.data_bytes and header.shape and header.shape[0]:
        raise ValueError(f"{what} has shape {header.shape}, without any pixels")
    return header


def read_stored(
    stored: StoredArray,
    what: str,
    load: Callable[[], np.ndarray],
    labels: tuple[str, np.ndarray] | None,
    options: ArrayOptions,
    context: DataContext,
) -> ImageSource:
    """Read the images of an array, or a sample of them, in memory or streamed.

    Parameters
    ----------
    what : str
        The array in messages.
    labels : tuple, optional
        The name of the array of labels, and the labels ``(N,)`` int64.
    load : callable
        Called without arguments if images of an array are read now that cannot be mapped into memory; it
        returns the array.

    Raises
    ------
    DataError
        If it is no array of images, or if the images do not fit in memory and cannot be streamed.
    """
    path = stored.path
    reader = ArrayReader(stored, options.size)
    if reader.alpha:
        context.warn(f"{path}: the 4 channels are taken for red, green, blue and alpha, on a white ground")
    chosen = sample_positions(stored.shape[0], context.limit, context.seed)
    classes: dict[str, Any] = {}
    if labels is not None:
        classes = {"labels": labels[1][chosen], "labels_from": labels[0]}
    if not _is_streamed(stored, len(chosen), what, options, context.memory):
        images = stored.mapped() if stored.offset is not None and len(chosen) else load()
        images = images if len(chosen) == len(images) else images[chosen]
        pixels = resize(to_uint8(path, images), options.size)
        pixels = pixels if pixels.flags.writeable else pixels.copy()  # those of the file may change
        return ImageSet(path.name, torch.from_numpy(pixels), [str(i) for i in chosen], **classes)
    data = StreamedImages(path.name, reader, Workers(reader, context.workers), chosen, **classes)
    return data.readable(context.warn) if context.skip_bad_images else data


def _is_streamed(
    stored: StoredArray, n: int, what: str, options: ArrayOptions, available: int | None
) -> bool:
    """Tell whether to stream ``n`` images; raise a DataError if they need it but cannot be streamed."""
    needed = stored.bytes_held(n)
    fits = available is None or needed <= available
    if options.stream is True or (options.stream == "auto" and not fits):
        if stored.offset is None:
            raise DataError(
                f"{stored.path}: {what} is compressed or no plain array, and cannot be "
                f"streamed{'' if fits else ', but is too large for memory'}; save it with numpy.savez"
            )
        return True
    if not fits:
        raise DataError(
            f"{stored.path}: {n} images need {needed / 2**30:.1f} GiB, {(available or 0) / 2**30:.1f} GiB "
            "are free; use `data.limit` or `data.stream=true`"
        )
    return False


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
        images = channels_first(stored.path, nothing)
        self.alpha = images.shape[1] == 4
        self.shape = (opaque_channels(images), size or images.shape[2], size or images.shape[3])

    def name(self, position: int) -> str:
        return str(position)

    def where(self, position: int) -> str:
        return f"{position} of {self.stored.path}"

    def read(self, position: int) -> np.ndarray:
        try:
            pixels = to_uint8(self.stored.path, np.array(self.stored.mapped()[position : position + 1]))
        except (OSError, ValueError, DataError) as error:
            raise BadImage(fault_of(error)) from None
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

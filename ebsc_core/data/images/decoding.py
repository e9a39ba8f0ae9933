"""Decode image files of any type, depth and size into pixels of one size, within limits."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from threading import Condition
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from ebsc_core.data.images.pil import channels_of, eight_bit, is_deep, is_gray
from ebsc_core.data.images.workers import BadImage
from ebsc_core.utils.errors import text_of

LARGEST_SIDE = 224
# PIL raises these errors for files that are not images, are truncated, or claim absurd sizes.
BAD_IMAGE = (
    *(OSError, RuntimeError, ValueError, TypeError, SyntaxError, EOFError, ArithmeticError, LookupError),
    *(MemoryError, zlib.error, struct.error, Image.DecompressionBombError),
)
# Formats that PIL knows and does not decode itself: EPS starts another program, the others need one.
NOT_DECODED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
# The formats of most files; they are tried first.
COMMON = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")
# In these formats the further pictures of a file are previews or layers, not pages.
ONE_PAGE = frozenset({"MPO", "PSD"})
# An image that needs more memory than this to be decoded must be a large file, too: at least 1/RATIO of it.
# Photographs and drawings are far below the ratio, and single-coloured areas that fill the memory above it.
FREE, RATIO = 2**28, 200
# Bytes of memory per pixel while a file is decoded, as measured; other formats need those of the pixels.
CODEC = {"AVIF": 10, "HEIF": 10, "JPEG2000": 20, "WEBP": 16}
PROGRESSIVE = 6


@dataclass(frozen=True)
class ImageHeader:
    """Describe an image file before it is decoded."""

    width: int
    height: int
    gray: bool
    pages: bool = False
    """Whether the file holds more pictures after the first one."""


@cache
def image_formats() -> tuple[str, ...]:
    """Return the formats that are decoded: all of PIL and its plugins, except :data:`NOT_DECODED`."""
    Image.init()
    with suppress(ImportError):  # optional; it decodes HEIF, the photographs of many phones
        from pillow_heif import register_heif_opener

        register_heif_opener()
    known = [kind for kind in Image.ID if kind not in NOT_DECODED]
    return tuple(sorted(known, key=lambda kind: COMMON.index(kind) if kind in COMMON else len(COMMON)))


@cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of the files that can be decoded, in lower case, with the dot."""
    known = set(image_formats()) | {"MPO"}  # opened as JPEG
    return frozenset(end for end, kind in Image.registered_extensions().items() if kind in known)


def are_image_files(paths: Iterable[str]) -> bool:
    """Return whether all paths are files whose names say that they are images."""
    suffixes = image_suffixes()
    return all(
        Path(path).suffix.lower() in suffixes and os.path.isfile(os.path.expanduser(path)) for path in paths
    )


def read_header(file: BinaryIO) -> ImageHeader | BadImage:
    """Read the header of an image file, or return the error."""
    try:
        with Image.open(file, formats=image_formats()) as image:
            # EXIF orientations 5 to 8 swap the sides.
            # PNG's own method would decode the whole picture, in search of EXIF after it.
            exif = Image.Image.getexif(image) if image.format == "PNG" else image.getexif()
            swapped = exif.get(0x0112) in (5, 6, 7, 8)
            size = image.size[::-1] if swapped else image.size
            return ImageHeader(*size, gray=is_gray(image), pages=_has_pages(image))
    except BAD_IMAGE as error:
        return BadImage(_reason(error))


def common_shape(
    headers: list[ImageHeader], size: int | None, largest: int | None = None
) -> tuple[int, int, int]:
    """Choose the common shape ``(C, H, W)`` of all images.

    Without ``size``, images of one size keep it if no side is above ``largest`` (224 by default). Others get
    their median shorter side, at most ``largest``.
    """
    largest = largest or LARGEST_SIDE
    channels = 1 if all(header.gray for header in headers) else 3
    if size is not None:
        return channels, size, size
    shapes = {(h.height, h.width) for h in headers}
    if len(shapes) == 1 and max(shape := shapes.pop()) <= largest:
        return channels, *shape
    side = int(median(min(h.height, h.width) for h in headers)) if headers else largest
    side = max(4, min(side, largest))
    return channels, side, side


def decode_image(file: BinaryIO, stored: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Decode an image file into pixels ``(C, H, W)`` uint8; of several pictures, the first one.

    The function uses PIL, which scales large JPEG files while it decodes them. Torchvision's decoders give
    the same pixels a third sooner if nothing is scaled, but will be removed (as 0.29 says), and a damaged
    PNG ends their process.

    Parameters
    ----------
    file : BinaryIO
    stored : int
        The bytes that the file takes where it is stored, which limit the memory for decoding it.
    shape : tuple
        The shape ``(C, H, W)`` of the result.

    Raises
    ------
    BadImage
        If the file is no readable image, or would need far more memory than a file of its size should.
    """
    channels, height, width = shape
    mode = "L" if channels == 1 else "RGB"
    try:
        with Image.open(file, formats=image_formats()) as opened:
            whole = opened.size
            opened.draft(mode, (width, height))  # JPEG decodes at the smallest scale that suffices
            needed = _memory(opened, whole)
            if needed > max(FREE, RATIO * stored):
                raise BadImage(
                    f"its {whole[0]}x{whole[1]} pixels need {needed / 2**20:.0f} MiB, far more than a file "
                    f"of {stored / 2**20:.1f} MiB should; scale it down"
                )
            with _ROOM.of(needed):
                ImageOps.exif_transpose(opened, in_place=True)
                return fit_image(eight_bit(opened, mode), (width, height))
    except BAD_IMAGE as error:
        raise BadImage(_reason(error)) from None


def fit_image(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Scale the shorter side to ``size`` (width, height), crop the centre, return pixels ``(C, H, W)``."""
    if image.size != size:
        image = ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    return channels_of(image)


def _reason(error: Exception) -> str:
    """Say in a few words why an image cannot be read."""
    text = text_of(error)
    return "not an image" if text.startswith("cannot identify image file") else text


def _has_pages(image: Image.Image) -> bool:
    with suppress(*BAD_IMAGE):  # damage after the first picture does not matter
        return image.format not in ONE_PAGE and bool(getattr(image, "is_animated", False))
    return False


def _memory(image: Image.Image, whole: tuple[int, int]) -> int:
    """Estimate the bytes of memory for decoding; ``whole`` is the size before any draft."""
    pixels = image.width * image.height
    held = 12 if is_deep(image) else 9 if image.has_transparency_data else 5 if image.mode != "RGB" else 4
    needed = pixels * max(held, CODEC.get(str(image.format), 0))
    if image.info.get("progressive"):  # the decoder holds the coefficients of the whole picture
        needed += PROGRESSIVE * whole[0] * whole[1]
    return needed


class _Room:
    """Let threads take parts of a memory budget; what exceeds it is taken alone."""

    def __init__(self, most: int) -> None:
        self.most, self.taken, self.changed = most, 0, Condition()

    @contextmanager
    def of(self, needed: int) -> Iterator[None]:
        """Take ``needed`` bytes inside the block, after waiting for them."""
        needed = min(needed, self.most)
        with self.changed:
            self.changed.wait_for(lambda: self.taken + needed <= self.most)
            self.taken += needed
        try:
            yield
        finally:
            with self.changed:
                self.taken -= needed
                self.changed.notify_all()


_ROOM = _Room(FREE)

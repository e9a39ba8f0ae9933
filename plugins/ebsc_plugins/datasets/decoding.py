"""Decode image files of any type, depth and size into pixels of one size."""

from __future__ import annotations

import io
from dataclasses import dataclass
from statistics import median

import numpy as np
from PIL import Image, ImageOps

from ebsc_core import BadImage, channels_of, eight_bit, is_gray
from ebsc_plugins.datasets.files import UNREADABLE, Files

LARGEST_SIDE = 224
# PIL also raises these errors for files that are not images, are truncated, or claim absurd sizes.
BAD_IMAGE = (*UNREADABLE, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Header:
    """Describe an image file before it is decoded."""

    width: int
    height: int
    gray: bool


def read_header(files: Files, position: int) -> Header | BadImage:
    """Read the header of a file, or return the error."""
    try:
        with Image.open(io.BytesIO(files.content(position))) as image:
            # EXIF orientations 5 to 8 swap the sides.
            swapped = image.getexif().get(0x0112) in (5, 6, 7, 8)
            size = image.size[::-1] if swapped else image.size
            return Header(*size, gray=is_gray(image))
    except BAD_IMAGE as error:
        return BadImage(_reason(error))


def common_shape(headers: list[Header], size: int | None) -> tuple[int, int, int]:
    """Choose the common shape ``(C, H, W)`` of all images."""
    channels = 1 if all(header.gray for header in headers) else 3
    if size is not None:
        return channels, size, size
    shapes = {(h.height, h.width) for h in headers}
    if len(shapes) == 1 and max(shape := shapes.pop()) <= LARGEST_SIDE:
        return channels, *shape
    side = int(median(min(h.height, h.width) for h in headers)) if headers else LARGEST_SIDE
    side = max(4, min(side, LARGEST_SIDE))
    return channels, side, side


def decode(content: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """Decode an image file into pixels ``(C, H, W)`` uint8.

    The function uses PIL, which scales large JPEG files while it decodes them. Torchvision's decoders give
    the same pixels a third sooner if nothing is scaled, but will be removed (as 0.29 says), and a damaged
    PNG ends their process.

    Raises
    ------
    OSError, ValueError, …
        If the file is no readable image; :data:`BAD_IMAGE` lists the errors.
    """
    channels, height, width = shape
    mode = "L" if channels == 1 else "RGB"
    with Image.open(io.BytesIO(content)) as opened:
        opened.draft(mode, (width, height))  # JPEG decodes at the smallest scale that suffices
        return fit(eight_bit(ImageOps.exif_transpose(opened), mode), (width, height))


def fit(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Scale the shorter side to ``size`` (width, height), crop the centre, return pixels ``(C, H, W)``."""
    if image.size != size:
        image = ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    return channels_of(image)


def decode_file(files: Files, position: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Decode the file at a position into pixels ``(C, H, W)`` uint8.

    Raises
    ------
    BadImage
        If the file is unreadable.
    """
    try:
        return decode(files.content(position), shape)
    except BAD_IMAGE as error:
        raise BadImage(_reason(error)) from None


def _reason(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "not an image" if text.startswith("cannot identify image file") else text

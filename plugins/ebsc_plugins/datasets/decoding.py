"""From the bytes of an image file, of any type, depth and size, to pixels of one size."""

from __future__ import annotations

import io
from dataclasses import dataclass
from statistics import median

import numpy as np
from PIL import Image, ImageOps

from ebsc_core import BadImage, channels_of, eight_bit, is_gray
from ebsc_plugins.datasets.files import UNREADABLE, Files

LARGEST_SIDE = 224
# What PIL raises beside on files that are no images, are cut short, or claim absurd sizes.
BAD_IMAGE = (*UNREADABLE, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Header:
    """What an image file says of itself, before decoding."""

    width: int
    height: int
    gray: bool


def read_header(files: Files, position: int) -> Header | BadImage:
    """What a file says of itself, or what is wrong with it."""
    try:
        with Image.open(io.BytesIO(files.content(position))) as image:
            # EXIF orientations 5 to 8 swap the sides.
            swapped = image.getexif().get(0x0112) in (5, 6, 7, 8)
            size = image.size[::-1] if swapped else image.size
            return Header(*size, gray=is_gray(image))
    except BAD_IMAGE as error:
        return BadImage(_reason(error))


def common_shape(headers: list[Header], size: int | None) -> tuple[int, int, int]:
    """``(C, H, W)`` every image is brought to."""
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
    """Pixels ``(C, H, W)`` uint8 of an image file.

    By PIL, which scales large JPEG while decoding them. Torchvision's decoders give the same pixels a third
    sooner where nothing is scaled, but are to be removed (0.29 says), and a damaged PNG ends their process.

    Raises
    ------
    OSError, ValueError, …
        As :data:`BAD_IMAGE` has it.
    """
    channels, height, width = shape
    mode = "L" if channels == 1 else "RGB"
    with Image.open(io.BytesIO(content)) as opened:
        opened.draft(mode, (width, height))  # JPEG decodes at the smallest scale that suffices
        return fit(eight_bit(ImageOps.exif_transpose(opened), mode), (width, height))


def fit(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Pixels ``(C, H, W)``, the shorter side scaled to ``(width, height)`` and the centre cut out."""
    if image.size != size:
        image = ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    return channels_of(image)


def decode_file(files: Files, position: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Pixels ``(C, H, W)`` uint8 of a file.

    Raises
    ------
    BadImage
        If there is no reading it.
    """
    try:
        return decode(files.content(position), shape)
    except BAD_IMAGE as error:
        raise BadImage(_reason(error)) from None


def _reason(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "not an image" if text.startswith("cannot identify image file") else text

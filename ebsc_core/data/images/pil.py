"""Convert decoded pictures of any depth and colour to 8-bit grey or RGB."""

from __future__ import annotations

import numpy as np
from PIL import Image

GRAY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "I;16B", "F"})


def is_gray(image: Image.Image) -> bool:
    """Return whether a picture has no colour, whatever its depth."""
    return image.mode in GRAY_MODES


def eight_bit(image: Image.Image, mode: str) -> Image.Image:
    """Convert a picture to ``mode``, ``L`` or ``RGB``."""
    if image.mode in ("I", "I;16", "I;16B"):  # 16-bit grey, which PIL would clip at 255
        levels = np.asarray(image).astype(np.float64) / 257
        image = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
    return image.convert(mode)


def channels_of(image: Image.Image) -> np.ndarray:
    """Return the pixels ``(C, H, W)`` uint8 of a picture in mode ``L`` or ``RGB``."""
    pixels = np.array(image)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)

"""Convert decoded pictures of any mode and depth to 8-bit grey or RGB, on a white ground."""

from __future__ import annotations

import numpy as np
from PIL import Image

# Grey modes of 8 bits and less, and deeper ones. Pillow has several names for 16 bits.
SHALLOW, DEEP = frozenset({"1", "L", "LA", "La"}), frozenset({"I", "F"})
# The largest values of the usual depths of deep pictures: 8, 12 and 16 bits.
TOPS = (255, 4095, 65535)
# Depths of which as many levels become each of the 256; here, levels are cut off, as Pillow does it.
EVEN = (255, 65535)


def is_gray(image: Image.Image) -> bool:
    """Return whether a picture has no colour, whatever its depth."""
    return image.mode in SHALLOW or is_deep(image)


def is_deep(image: Image.Image) -> bool:
    """Return whether a picture is grey with more than 8 bits."""
    return image.mode in DEEP or image.mode.startswith("I;16")


def eight_bit(image: Image.Image, mode: str) -> Image.Image:
    """Convert a picture to ``mode``, ``L`` or ``RGB``; white shows through where it is transparent.

    Each deep picture is scaled by the depth that its values use: the smallest of 8, 12 and 16 bits, or 0 to
    1 for floats. Values outside these are scaled from the smallest (or 0, if none is negative) to the
    largest.
    """
    if is_deep(image):
        image = _scaled(image)
    elif image.has_transparency_data:
        image = _on_white(image)
    elif not is_gray(image) and image.mode != "RGB":
        image = image.convert("RGB")  # from some modes, there is no direct way to grey
    return image if image.mode == mode else image.convert(mode)


def channels_of(image: Image.Image) -> np.ndarray:
    """Return the pixels ``(C, H, W)`` uint8 of a picture in mode ``L`` or ``RGB``."""
    pixels = np.array(image)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # premultiplied, with this one way out
        image = image.convert("LA")
    if image.mode != "RGBA":
        image = image.convert("RGBA")
    ground = Image.new("RGB", image.size, "white")
    ground.paste(image, mask=image)
    return ground


def _scaled(image: Image.Image) -> Image.Image:
    levels = np.asarray(image)
    finite = np.isfinite(levels)
    values = np.where(finite, levels, 0 if not finite.any() else levels[finite].min()).astype(np.float32)
    low, high = min(0.0, float(values.min())), float(values.max())
    tops = (1, *TOPS) if image.mode == "F" else TOPS
    top = next((top for top in tops if high <= top), high) if low == 0 else high
    if low == 0 and top in EVEN:
        scaled = np.floor(values / (top // 255))
    else:
        scaled = np.rint((values - low) * (255 / (top - low or 1)))
    pixels = scaled.clip(0, 255).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):  # the level of a PNG that is transparent
        pixels[levels == transparent] = 255
    return Image.fromarray(pixels)


def as_picture(pixels: np.ndarray) -> Image.Image:
    """Convert ``(C, H, W)`` uint8, grey or RGB, to a picture."""
    planes = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(planes))

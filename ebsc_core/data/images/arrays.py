"""Convert arrays of images of the usual shapes and dtypes to pixels."""

from __future__ import annotations

import numpy as np

from ebsc_core.utils.errors import DataError

# Images are converted in blocks of about so many values, so that intermediate results stay small.
BLOCK = 2**22


def to_uint8(where: object, images: np.ndarray) -> np.ndarray:
    """Convert images to ``(N, C, H, W)`` uint8, with ``C`` 1 or 3.

    Parameters
    ----------
    where : object
        The name of the images in error messages: a file, or another name.
    images : ndarray of shape (N, H, W), (N, H, W, C) or (N, C, H, W)
        The images, uint8 or floats in [0, 1]. Of 4 channels, the fourth is alpha: white shows through where
        it is not opaque.

    Raises
    ------
    DataError
        If the shape, the dtype or the values are not those of images.
    """
    images = channels_first(where, images)
    if images.dtype == np.uint8 and images.shape[1] != 4:
        return np.ascontiguousarray(images)
    shape = (len(images), opaque_channels(images), *images.shape[2:])
    pixels = np.empty(shape, np.uint8)
    step = max(1, BLOCK // max(1, int(np.prod(images.shape[1:]))))
    for start in range(0, len(images), step):
        block = images[start : start + step]
        if block.dtype != np.uint8:
            if block.size and not (block.min() >= 0 and block.max() <= 1):  # also false for NaN
                raise DataError(f"{where}: floating-point images must lie in [0, 1], without NaN")
            block = np.rint(block * 255).astype(np.uint8)
        pixels[start : start + step] = _on_white(block) if block.shape[1] == 4 else block
    return pixels


def channels_first(where: object, images: np.ndarray) -> np.ndarray:
    """Move the channels, 1, 3 or 4, to ``(N, C, H, W)`` and keep the dtype, uint8 or floats.

    Raises
    ------
    DataError
        If the shape or the dtype is not that of images.
    """
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4:
        last, first = images.shape[-1], images.shape[1]
        if last in (1, 3) or (last == 4 and first not in (1, 3)):
            images = np.moveaxis(images, -1, 1)
    if images.ndim != 4 or images.shape[1] not in (1, 3, 4):
        raise DataError(
            f"{where}: images have shape {images.shape}; expected (N, H, W), (N, H, W, C) or (N, C, H, W) "
            "with C 1, 3 or 4"
        )
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise DataError(f"{where}: images have dtype {images.dtype}; expected uint8 or floats in [0, 1]")
    return images


def opaque_channels(images: np.ndarray) -> int:
    """Return how many channels images ``(N, C, H, W)`` have without alpha."""
    return 3 if images.shape[1] == 4 else images.shape[1]


def _on_white(images: np.ndarray) -> np.ndarray:
    colors, alpha = images[:, :3].astype(np.uint16), images[:, 3:].astype(np.uint16)
    return ((colors * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)

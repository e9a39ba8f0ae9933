"""Convert arrays of images of the usual shapes and dtypes to pixels."""

from __future__ import annotations

import numpy as np

from ebsc_core.utils.errors import DataError


def to_uint8(where: object, images: np.ndarray) -> np.ndarray:
    """Convert images to ``(N, C, H, W)`` uint8, with ``C`` 1 or 3.

    Parameters
    ----------
    where : object
        The name of the images in error messages: a file, or another name.
    images : ndarray of shape (N, H, W), (N, H, W, C) or (N, C, H, W)
        The images, uint8 or floats in [0, 1].

    Raises
    ------
    DataError
        If the shape, the dtype or the values are not those of images.
    """
    images = channels_first(where, images)
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    if images.size and not (images.min() >= 0 and images.max() <= 1):  # also false for NaN
        raise DataError(f"{where}: floating-point images must lie in [0, 1], without NaN")
    return np.ascontiguousarray(np.rint(images * 255).astype(np.uint8))


def channels_first(where: object, images: np.ndarray) -> np.ndarray:
    """Move the channels to ``(N, C, H, W)`` and keep the dtype, uint8 or floats.

    Raises
    ------
    DataError
        If the shape or the dtype is not that of images.
    """
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[-1] in (1, 3):
        images = np.moveaxis(images, -1, 1)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(
            f"{where}: images have shape {images.shape}; expected (N, H, W), (N, H, W, C) or (N, C, H, W) "
            "with C 1 or 3"
        )
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise DataError(f"{where}: images have dtype {images.dtype}; expected uint8 or floats in [0, 1]")
    return images

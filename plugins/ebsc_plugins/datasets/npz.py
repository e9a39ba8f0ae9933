"""Images from a NumPy ``.npz`` archive."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from pydantic import Field

from ebsc_core import ComponentSpec
from ebsc_core.data.images import ImageSet
from ebsc_core.data.source import sample_positions
from ebsc_core.errors import DataError
from ebsc_core.interfaces import DataContext
from ebsc_core.options import Options


class NpzOptions(Options):
    """Which arrays of the file to read, and at what size."""

    images: str = "images"
    """Key of the images: (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or floats in [0, 1]."""
    labels: str | None = None
    """Key of the labels, (N,) integers, for scoring only; by default `labels` if there is one."""
    size: int | None = Field(None, ge=4)
    """Side in pixels every image is brought to (shorter side scaled, centre cut out), as in a folder; by
    default images stay as they are."""


def resolve_npz(name: str) -> ComponentSpec | None:
    """Takes any path that ends in ``.npz`` and is no folder."""
    path = Path(name).expanduser()
    if not name.lower().endswith(".npz") or path.is_dir():
        return None

    def read(options: NpzOptions, context: DataContext) -> ImageSet:
        return read_npz(path, options, context)

    return ComponentSpec(name, "a NumPy archive", read, options=NpzOptions)


def read_npz(path: Path, options: NpzOptions, context: DataContext) -> ImageSet:
    """Read images and, where present, labels.

    Raises
    ------
    DataError
        If the file is missing, no archive, lacks the images, holds pickled objects, or its shapes or
        dtypes do not fit.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not a readable .npz archive (damaged, or of another type)")
    try:
        with np.load(path, allow_pickle=False) as archive:
            for option, key in (("images", options.images), ("labels", options.labels)):
                if key is not None and key not in archive:
                    raise DataError(
                        f"{path} has no array {key!r} (it has: {', '.join(archive) or 'none'}); "
                        f"name the right one with --set data.{option}=KEY"
                    )
            images = _array(path, archive, options.images)
            labels_key = options.labels or "labels"
            labels = _array(path, archive, labels_key) if labels_key in archive else None
    # RuntimeError: encrypted, or compressed in a way Python does not know.
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is not a readable .npz archive ({error})") from None
    pixels = _to_uint8(path, images)
    if labels is not None:
        labels = _to_classes(path, labels, len(pixels))
    chosen = sample_positions(len(pixels), context.limit, context.seed)
    ids = [str(i) for i in chosen]
    labels = None if labels is None else labels[chosen]
    return ImageSet(path.name, torch.from_numpy(_resize(pixels[chosen], options.size)), ids, labels)


def _array(path: Path, archive: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
    try:
        return np.asarray(archive[key])
    except ValueError as error:
        if "pickle" in str(error).lower():
            raise DataError(
                f"{path}: array {key!r} holds pickled Python objects, which are never loaded; "
                "save it as a plain numeric array"
            ) from None
        raise


def _to_uint8(path: Path, images: np.ndarray) -> np.ndarray:
    """``(N, C, H, W)`` uint8."""
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[-1] in (1, 3):
        images = np.moveaxis(images, -1, 1)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(
            f"{path}: images have shape {images.shape}; expected (N, H, W), (N, H, W, C) or (N, C, H, W) "
            "with C 1 or 3"
        )
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    if np.issubdtype(images.dtype, np.floating):
        if images.size and not (images.min() >= 0 and images.max() <= 1):  # also false for NaN
            raise DataError(f"{path}: floating-point images must lie in [0, 1], without NaN")
        return np.ascontiguousarray(np.rint(images * 255).astype(np.uint8))
    raise DataError(f"{path}: images have dtype {images.dtype}; expected uint8 or floats in [0, 1]")


def _resize(pixels: np.ndarray, size: int | None) -> np.ndarray:
    """``(N, C, size, size)`` by the filter that images of a folder go through."""
    if size is None or pixels.shape[2:] == (size, size) or not pixels.size:
        return pixels
    resized = np.empty((*pixels.shape[:2], size, size), dtype=np.uint8)
    for image, channels in zip(pixels, resized, strict=True):
        picture = Image.fromarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1))
        fitted = np.asarray(ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR))
        channels[:] = fitted if fitted.ndim == 2 else np.moveaxis(fitted, -1, 0)
    return resized


def _to_classes(path: Path, labels: np.ndarray, n: int) -> np.ndarray:
    if labels.shape != (n,):
        raise DataError(f"{path}: labels have shape {labels.shape}; expected ({n},), one per image")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path}: labels have dtype {labels.dtype}; expected integers")
    return labels.astype(np.int64)

"""Read images from a NumPy ``.npz`` archive."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from ebsc_core import (
    ComponentSpec,
    DataContext,
    DataError,
    ImageSet,
    ImageSource,
    Options,
    StreamedImages,
    Workers,
    sample_positions,
    to_uint8,
)
from ebsc_plugins.datasets.arrays import ArrayReader, StoredArray, find_array, resize


class NpzOptions(Options):
    """Configure which arrays of the file are read, and at what size."""

    images: str = "images"
    """The key of the images: (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or floats in [0, 1]."""
    labels: str | None = None
    """The key of the labels, (N,) integers, used for scoring only. The default is `labels` if it exists."""
    size: int | None = Field(None, ge=4)
    """Every image is scaled and cropped to this side, in pixels: the shorter side is scaled, and the centre
    is kept. By default, images keep their size."""
    stream: Literal[True, False, "auto"] = "auto"
    """Images are read when a batch needs them, instead of all at the start. By default, this happens if
    they do not fit in memory. Only uncompressed arrays can be streamed."""


def resolve_npz(name: str) -> ComponentSpec | None:
    """Accept any path that ends in ``.npz`` and is not a folder."""
    path = Path(os.path.expanduser(name))
    if not name.lower().endswith(".npz") or path.is_dir():
        return None

    def read(options: NpzOptions, context: DataContext) -> ImageSource:
        return read_npz(path, options, context)

    return ComponentSpec(name, "a NumPy archive", read, options=NpzOptions)


def read_npz(path: Path, options: NpzOptions, context: DataContext) -> ImageSource:
    """Read images, in memory or streamed, and labels if there are any.

    Raises
    ------
    DataError
        If the file is missing, is not an archive, lacks the images, holds pickled objects, or has shapes or
        dtypes that do not fit; or if the images do not fit in memory and cannot be streamed.
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
                        f"name the right one with `data.{option}=KEY`"
                    )
            stored = find_array(path, archive.zip, options.images)
            streamed = _is_streamed(stored, options, context.memory)
            images = None if streamed else _array(path, archive, options.images)
            labels_key = options.labels or "labels"
            labels = _array(path, archive, labels_key) if labels_key in archive else None
    # RuntimeError: the archive is encrypted, or compressed in a way that Python does not know.
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is not a readable .npz archive ({error})") from None
    pixels = None if images is None else to_uint8(path, images)
    n = stored.shape[0]
    chosen = sample_positions(n, context.limit, context.seed)
    if labels is not None:
        labels = _to_classes(path, labels, n)[chosen]
    if pixels is not None:
        ids = [str(i) for i in chosen]
        return ImageSet(path.name, torch.from_numpy(resize(pixels[chosen], options.size)), ids, labels)
    reader = ArrayReader(stored, options.size)
    data = StreamedImages(path.name, reader, Workers(reader, context.workers), chosen, labels)
    return data.readable(context.warn) if context.skip_bad_images else data


def _is_streamed(stored: StoredArray, options: NpzOptions, available: int | None) -> bool:
    """Tell whether to stream the images; raise a DataError if they need it but cannot be streamed."""
    fits = available is None or stored.bytes_held() <= available
    if options.stream is True or (options.stream == "auto" and not fits):
        if stored.offset is None:
            raise DataError(
                f"{stored.path}: array {options.images!r} is compressed or no plain array, and cannot be "
                f"streamed{'' if fits else ', but is too large for memory'}; save it with numpy.savez"
            )
        return True
    if not fits:
        raise DataError(
            f"{stored.path}: its images need {stored.bytes_held() / 2**30:.1f} GiB, "
            f"{(available or 0) / 2**30:.1f} GiB are free; use `data.stream=true`"
        )
    return False


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


def _to_classes(path: Path, labels: np.ndarray, n: int) -> np.ndarray:
    if labels.shape != (n,):
        raise DataError(f"{path}: labels have shape {labels.shape}; expected ({n},), one per image")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path}: labels have dtype {labels.dtype}; expected integers")
    return labels.astype(np.int64)

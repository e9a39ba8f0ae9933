"""Read images from a NumPy ``.npz`` archive."""

from __future__ import annotations

import os
import zipfile
import zlib
from functools import partial
from pathlib import Path

import numpy as np

from ebsc_core import ComponentSpec, DataContext, DataError, ImageSource, fault_of
from ebsc_plugins.datasets.arrays import ArrayOptions, StoredArray, find_array, read_stored


class NpzOptions(ArrayOptions):
    """Configure which arrays of the file are read, and at what size."""

    images: str = "images"
    """The key of the images: (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or floats in [0, 1]."""
    labels: str | None = None
    """The key of the labels, (N,) integers, used for scoring only. The default is `labels` if it exists."""


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
            assert archive.zip
            stored = find_array(path, archive.zip, options.images)
            what = f"array {options.images!r}"
            labels_key = options.labels or "labels"
            labels = _labels(archive, stored, labels_key) if labels_key in archive else None
            load = partial(archive.__getitem__, options.images)
            return read_stored(stored, what, load, labels, options, context)
    # RuntimeError: the archive is encrypted, or compressed in a way that Python does not know.
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is not a readable .npz archive ({fault_of(error)})") from None


def _labels(archive: np.lib.npyio.NpzFile, images: StoredArray, key: str) -> tuple[str, np.ndarray]:
    """Read the labels, after a look at what their header says."""
    path, n = images.path, images.shape[0] if images.shape else 0
    assert archive.zip
    stored = find_array(path, archive.zip, key)
    if stored.shape not in ((n,), (n, 1)):
        raise DataError(f"{path}: labels have shape {stored.shape}; expected ({n},), one per image")
    if not np.issubdtype(stored.dtype, np.integer):
        raise DataError(f"{path}: labels have dtype {stored.dtype}; expected integers")
    return f"array {key!r}", archive[key].reshape(n).astype(np.int64)

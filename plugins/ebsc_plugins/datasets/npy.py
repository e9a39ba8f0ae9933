"""Read images from a single array in a NumPy ``.npy`` file."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np

from ebsc_core import ComponentSpec, DataContext, DataError, ImageSource, fault_of
from ebsc_plugins.datasets.arrays import ArrayOptions, find_npy, read_stored


def resolve_npy(name: str) -> ComponentSpec | None:
    """Accept any path that ends in ``.npy`` and is not a folder."""
    path = Path(os.path.expanduser(name))
    if not name.lower().endswith(".npy") or path.is_dir():
        return None

    def read(options: ArrayOptions, context: DataContext) -> ImageSource:
        return read_npy(path, options, context)

    return ComponentSpec(name, "an array of images", read, options=ArrayOptions)


def read_npy(path: Path, options: ArrayOptions, context: DataContext) -> ImageSource:
    """Read images, in memory or streamed.

    Raises
    ------
    DataError
        If the file is missing, or does not hold an array of images.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file")
    try:
        stored = find_npy(path)
        if len(stored.shape) == 2:
            raise DataError(
                f"{path} holds rows of features {stored.shape}, not images; cluster them with "
                f"`ebsc cluster {path}`"
            )
        load = partial(np.load, path, allow_pickle=False)
        return read_stored(stored, "the array", load, None, options, context)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable .npy file ({fault_of(error)})") from None

"""Read features from files: ``.npy``, ``.npz``, ``.h5``, ``.parquet`` and ``.csv``.

Further arrays or columns of a file may hold the names of the rows and their classes. The contents of
``.npy`` and ``.h5`` files stay on disk and are read in blocks, because they may be large. Files come from
strangers: nothing is unpickled, nothing outside of a file is read, and no file can ask for more memory than
its real size allows (``ebsc_core.utils.limits``).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ebsc_core.config.schema import FeaturesChoice
from ebsc_core.data.features.csv_files import read_csv
from ebsc_core.data.features.hdf5_files import read_hdf5
from ebsc_core.data.features.numpy_files import read_npy, read_npz
from ebsc_core.data.features.parquet_files import read_parquet
from ebsc_core.data.features.source import UNREADABLE, FeatureSource
from ebsc_core.utils.errors import DataError, fault_of
from ebsc_core.utils.manifest import GuardedFolder
from ebsc_core.utils.paths import existing_file

READERS: dict[str, Callable[[Path, FeaturesChoice], FeatureSource]] = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
    ".parquet": read_parquet,
    ".csv": read_csv,
}


def read_features(choice: FeaturesChoice) -> FeatureSource:
    """Open a file of features; its suffix decides the type.

    Raises
    ------
    DataError
        If the file is missing or damaged, has an unknown type, or holds no features; or if it declares far
        more data than it holds.
    ComponentError
        If the package that reads this type is missing.
    """
    path = existing_file(choice.path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: features are read from {', '.join(READERS)}")
    _check_guarded(path)
    try:
        return reader(path, choice)
    except UNREADABLE as error:
        raise DataError(f"{path} is not a readable {path.suffix} file ({fault_of(error)})") from None


def _check_guarded(path: Path) -> None:
    """Raise a DataError if a run has written this file, and it is no longer the one that was written."""
    folder = GuardedFolder(path.parent, "restore it from a copy or repeat the run")
    try:
        guarded = path.name in (folder.digests or {})
    except DataError:  # a file of this name that is no manifest of ours
        return
    if guarded:
        folder.file(path.name)

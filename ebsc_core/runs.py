"""The run directory: what is in it, and how it comes to be there all at once.

==================  ===========================================================================
``run.toml``        the whole configuration, resolved; versions; the provider of each part
``checkpoints/``    weights as safetensors
``affinity.npz``    the affinity of the rows that were clustered, as SciPy stores a sparse matrix
``features.h5``     features, embeddings, ids, labels where known (see ``ebsc_core.features``)
``assignments.csv`` image, cluster, confidence and, where known, label; held-out images after the others
``metrics.json``    scores, label-free figures, timings, training history, warnings
==================  ===========================================================================
"""

from __future__ import annotations

import csv
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import tomli_w
from scipy import sparse

from ebsc_core.errors import RunDirectoryError

CONFIG, ASSIGNMENTS, METRICS = "run.toml", "assignments.csv", "metrics.json"
AFFINITY, CHECKPOINTS = "affinity.npz", "checkpoints"
PACKAGES = ("ebsc", "torch", "torchvision", "timm", "scikit-learn", "scipy", "numpy", "h5py", "pluggy")


class RunDirectory:
    """A context manager: files go to a hidden folder beside, which takes its name only on success.

    Raises
    ------
    RunDirectoryError
        If the path is a file, a folder that holds something, or cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Of ".", a link or "runs/..", the folder beside must be found before anything is computed.
        self.target = path.resolve()
        check_free(path)

    def __enter__(self) -> RunDirectory:
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self.beside = Path(
                tempfile.mkdtemp(prefix=f".{self.target.name}.", suffix=".incomplete", dir=self.target.parent)
            )
        except OSError as error:
            raise RunDirectoryError(
                f"cannot create {self.path}: {error.strerror}; choose another --out"
            ) from None
        self.checkpoints.mkdir()
        # mkdtemp makes folders for the owner's eyes only; a result is an ordinary folder.
        umask = os.umask(0)
        os.umask(umask)
        self.beside.chmod(0o777 & ~umask)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            try:
                check_free(self.target)
            except RunDirectoryError as error:
                raise RunDirectoryError(f"{error}; the finished run is kept in {self.beside}") from None
            if self.target.is_dir():  # the user's own: perhaps a mount, or where the shell stands
                for item in self.beside.iterdir():
                    shutil.move(item, self.target)
                self.beside.rmdir()
            else:
                os.rename(self.beside, self.target)
        else:
            shutil.rmtree(self.beside, ignore_errors=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """What cannot be written here, to a full disk for instance, is a RunDirectoryError."""
        try:
            yield
        except OSError as error:
            raise RunDirectoryError(
                f"cannot write {self.path}: {error.strerror or error}; choose another --out"
            ) from error

    @property
    def checkpoints(self) -> Path:
        return self.beside / CHECKPOINTS

    def write_config(self, tables: dict[str, Any]) -> None:
        """``run.toml``; entries without a value are left out, as TOML has none.

        Paths that are not UTF-8 keep their bytes.
        """
        text = tomli_w.dumps(without_none(tables))
        (self.beside / CONFIG).write_text(text, encoding="utf-8", errors="surrogateescape")

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """``metrics.json``."""
        text = json.dumps(metrics, indent=2, allow_nan=False)
        (self.beside / METRICS).write_text(text + "\n", encoding="utf-8")

    def write_affinity(self, graph: sparse.csr_matrix) -> None:
        """``affinity.npz``."""
        sparse.save_npz(self.beside / AFFINITY, graph)

    def write_assignments(self, columns: Mapping[str, Iterable[Any]]) -> None:
        """``assignments.csv`` from its columns; file names that are not UTF-8 keep their bytes."""
        path = self.beside / ASSIGNMENTS
        with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))


def check_free(path: Path) -> None:
    """Raise a RunDirectoryError unless ``path`` is free or an empty folder."""
    if path.is_dir():
        if any(path.iterdir()):
            raise RunDirectoryError(f"{path} already holds files; choose another --out or remove it")
    elif path.exists() or path.is_symlink():
        raise RunDirectoryError(f"{path} is a file, not a folder; choose another --out")


def default_path(parts: list[str], seed: int) -> Path:
    """``runs/<time>-<parts>-s<seed>``, not taken yet."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    words = "-".join("".join(c if c.isalnum() or c in "-_." else "_" for c in p) for p in parts)
    path = Path("runs") / f"{stamp}-{words}-s{seed}"
    number = 1
    while path.exists():
        number += 1
        path = path.with_name(f"{stamp}-{words}-s{seed}-{number}")
    return path


def provenance() -> dict[str, Any]:
    """Versions of what matters, the machine's platform, and the time."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def peak_memory_mib() -> int | None:
    """The most memory this process has held; None where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    # Linux counts in KiB, macOS in bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def without_none(value: Any) -> Any:
    """Plain values as TOML can hold them: entries of None are left out."""
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_none(item) for item in value]
    return value

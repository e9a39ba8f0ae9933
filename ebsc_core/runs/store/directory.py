"""Define the content of the run directory, and write it.

The file ``unfinished.toml`` (see ``ebsc_core.runs.store.unfinished``) is there from the start until all
other files are complete. So a directory without it is finished.

==================  ===========================================================================
``run.toml``        the whole configuration, resolved; versions; the provider of each component
``checkpoints/``    weights as safetensors
``affinity.npz``    the affinity of the rows that were clustered, as SciPy stores a sparse matrix
``features.h5``     features, embeddings, ids, labels where known (see ``ebsc_core.data.features.store``)
``assignments.csv`` image, cluster, confidence and, if known, label; the test set after the fit set
``metrics.json``    scores, label-free figures, timings, training history, warnings
``report.html``     all of that on a page, with pictures; written last (see ``ebsc_core.report``)
==================  ===========================================================================
"""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ebsc_core.config.loading import write_toml
from ebsc_core.runs.store.unfinished import (
    LOCK,
    UNFINISHED,
    WORK,
    at_work,
    check_unfinished,
    how_unfinished,
    is_unfinished,
)
from ebsc_core.utils.errors import Interrupted, RunDirectoryError
from ebsc_core.utils.files import lock, locked, remove, written_whole

if TYPE_CHECKING:
    from scipy import sparse

CONFIG, ASSIGNMENTS, METRICS = "run.toml", "assignments.csv", "metrics.json"
AFFINITY, CHECKPOINTS = "affinity.npz", "checkpoints"


def own_files(path: Path) -> list[Path]:
    """Return the files that the run in a directory has written and needs, except the report."""
    named = [path / name for name in (CONFIG, ASSIGNMENTS, METRICS, AFFINITY, "features.h5", UNFINISHED)]
    return [*named, *(path / CHECKPOINTS).glob("*")]


class RunDirectory:
    """Write a run directory: files go to a hidden folder inside it, and move out of it on success.

    This is a context manager. An error leaves nothing behind, unless there is a checkpoint of the training.
    In this case the unfinished directory stays, and a note on the error says how to resume.

    Parameters
    ----------
    path : Path
    to_go_on : mapping
        The content of ``unfinished.toml``.
    going_on : bool
        Whether to resume an unfinished directory. An error then leaves it as it was.
    warn : callable, optional
        Called with a line if nothing keeps another process from writing to the directory.

    Raises
    ------
    RunDirectoryError
        If the path is a file or a folder that is not empty, or cannot be created. If the run is to be
        resumed: if it is finished, or if another process writes it now.
    """

    def __init__(
        self,
        path: Path,
        unfinished: Mapping[str, Any] | None = None,
        resuming: bool = False,
        warn: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.path, self.unfinished, self.resuming = path, unfinished or {}, resuming
        self.warn = warn
        # Resolve ".", a link or "runs/.." before anything is computed.
        self.target = Path(os.path.realpath(path))  # Path.resolve raises an error on circular links
        self.work_folder = self.target / WORK
        """The folder that holds the files until all are complete."""
        self.training: Path | None = None
        """The file for the checkpoint if training ends early."""
        self.lock: IO[bytes] | None = None
        check_unfinished(path) if resuming else check_free(path)

    def __enter__(self) -> RunDirectory:
        self.made = not self.target.exists()
        try:
            self.target.mkdir(parents=True, exist_ok=True)
            self.work_folder.mkdir(exist_ok=self.resuming)
            self._begin()
        except OSError as error:
            if isinstance(error, FileExistsError):  # another process was faster
                check_free(self.path)
            elif not self.resuming:
                self._leave_nothing()
            raise RunDirectoryError(
                f"cannot create {self.path}: {error.strerror}; choose another `out`"
            ) from None
        return self

    def _begin(self) -> None:
        """Lock the directory, and remove what a killed process has left in it."""
        self.lock = locked(self.work_folder / LOCK)
        if self.lock is None:
            raise RunDirectoryError(at_work(self.path))
        if lock(self.lock, shared=False) is None:
            self.warn(f"the file system of {self.path} has no locks; start no second command on this run")
        if self.resuming and not is_unfinished(self.target):  # another process has finished it
            self._let_go()
            check_unfinished(self.path)
        for item in self.work_folder.iterdir():
            if item.name != LOCK:
                remove(item)
        self.checkpoints.mkdir()
        with written_whole(self.target / UNFINISHED) as file:
            write_toml(file, self.unfinished)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            with self.writing():
                self._finish()
        elif self.resuming or (self.training and self.training.exists()):
            if self.lock:
                self.lock.close()
            how = f"to go on: ebsc resume {shlex.quote(str(self.path))}"
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted(f"interrupted; {how}") from error
            error.add_note(how)
        else:
            self._leave_nothing()

    def _finish(self) -> None:
        for item in self.work_folder.iterdir():
            if item.name != LOCK:
                remove(self.target / item.name)  # left by a process that was killed here
                item.rename(self.target / item.name)
        (self.target / UNFINISHED).unlink()
        self._let_go()

    def _let_go(self) -> None:
        """Release the lock and remove the hidden folder.

        ``unfinished.toml`` must be gone already: the next process that gets the lock checks for it.
        """
        if self.lock:
            self.lock.close()
        shutil.rmtree(self.work_folder, ignore_errors=True)

    def _leave_nothing(self) -> None:
        with suppress(OSError):
            (self.target / UNFINISHED).unlink(missing_ok=True)
        self._let_go()
        if self.made:
            with suppress(OSError):  # another program has put something there
                self.target.rmdir()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn an OSError, for instance on a full disk, into a RunDirectoryError."""
        try:
            yield
        except OSError as error:
            raise RunDirectoryError(
                f"cannot write {self.path}: {error.strerror or error}; choose another `out`"
            ) from error

    @property
    def checkpoints(self) -> Path:
        return self.work_folder / CHECKPOINTS

    def write_config(self, tables: dict[str, Any]) -> None:
        """Write ``run.toml``; entries without a value are left out, because TOML has no null.

        Paths that are not UTF-8 keep their bytes.
        """
        write_toml(self.work_folder / CONFIG, tables)

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Write ``metrics.json``."""
        text = json.dumps(metrics, indent=2, allow_nan=False)
        (self.work_folder / METRICS).write_text(text + "\n", encoding="utf-8")

    def write_affinity(self, graph: sparse.csr_matrix) -> None:
        """Write ``affinity.npz``."""
        from scipy import sparse

        sparse.save_npz(self.work_folder / AFFINITY, graph)

    def write_assignments(self, columns: Mapping[str, Iterable[Any]]) -> None:
        """Write ``assignments.csv`` from its columns; file names that are not UTF-8 keep their bytes."""
        path = self.work_folder / ASSIGNMENTS
        with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))


def check_free(path: Path) -> None:
    """Raise a RunDirectoryError unless ``path`` is free or an empty folder."""
    if is_unfinished(path):
        raise RunDirectoryError(f"{how_unfinished(path)}, or choose another `out`")
    if path.is_dir():
        if any(path.iterdir()):
            raise RunDirectoryError(f"{path} already holds files; choose another `out` or remove it")
    elif path.exists() or path.is_symlink():
        raise RunDirectoryError(f"{path} is a file, not a folder; choose another `out`")


def default_path(parts: list[str], seed: int) -> Path:
    """Return an unused path ``runs/<time>-<parts>-s<seed>``."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    words = "-".join("".join(c if c.isalnum() or c in "-_." else "_" for c in p) for p in parts)
    path = Path("runs") / f"{stamp}-{words}-s{seed}"
    number = 1
    while path.exists():
        number += 1
        path = path.with_name(f"{stamp}-{words}-s{seed}-{number}")
    return path

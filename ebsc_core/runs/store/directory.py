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
``manifest``        the SHA-256 of each of these files, written after them (see ``ebsc_core.utils.manifest``)
``decisions.json``  what was decided about the clusters since (names, merges and so on); not in the manifest,
                    since it changes alone; it has its own checksum (``ebsc_core.runs.store.decisions``)
``report.html``     all of that on a page, with pictures; not in the manifest, since no command reads it
                    and ``ebsc report`` writes it again (see ``ebsc_core.report``)
==================  ===========================================================================
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ebsc_core.config.loading import write_toml
from ebsc_core.plugins.faults import origin
from ebsc_core.runs.store.checkpoint_note import NOTE, CheckpointNote
from ebsc_core.runs.store.unfinished import (
    LOCK,
    UNFINISHED,
    WORK,
    at_work,
    check_folder,
    check_unfinished,
    holds_remains_only,
    how_unfinished,
    is_at_work,
    is_unfinished,
    read_unfinished,
    write_unfinished,
)
from ebsc_core.utils.errors import NOTHING_WRITTEN, DataError, EbscError, Interrupted, RunDirectoryError
from ebsc_core.utils.files import check_writable, cut_name, lock, locked, remove, write_csv
from ebsc_core.utils.manifest import MANIFEST, GuardedFolder, write_manifest
from ebsc_core.utils.paths import features_folder, is_cache

if TYPE_CHECKING:
    from scipy import sparse

CONFIG, ASSIGNMENTS, METRICS = "run.toml", "assignments.csv", "metrics.json"
AFFINITY, CHECKPOINTS, DECISIONS, REPORT = "affinity.npz", "checkpoints", "decisions.json", "report.html"
# Bytes of the components, and of components and source together, in the name of a directory.
MAX_COMPONENTS, MAX_NAME = 120, 200


def check_finished(path: Path) -> None:
    """Raise a RunDirectoryError unless ``path`` is the directory of a finished run; read no file of it."""
    check_folder(path, "give the directory of a run")
    if is_unfinished(path):
        raise RunDirectoryError(how_unfinished(path))
    needed = (CONFIG, METRICS, ASSIGNMENTS, "features.h5")
    missing = [name for name in needed if not (path / name).is_file()]
    if missing:
        raise RunDirectoryError(f"{path} holds no finished run: {missing[0]} is missing")


def is_run(path: Path) -> bool:
    """Return whether a path is the directory of a run, finished or not."""
    return path.is_dir() and ((path / CONFIG).is_file() or is_unfinished(path))


def check_output(path: Path, read: Iterable[Path] = ()) -> None:
    """Raise a DataError unless a file can be written to ``path``, which must not be one that a run needs.

    Parameters
    ----------
    read : iterable of Path
        What is read, and must not be written over.
    """
    check_writable(path, read)
    real = Path(os.path.realpath(path))
    runs = filter(is_run, (real.parent, real.parent.parent))  # checkpoints are in a folder of the run
    for file in (file for run in runs for file in own_files(run)):
        if file.exists() and path.exists() and path.samefile(file):
            raise DataError(
                f"{path} belongs to a run and would be lost; give the path of another file to write"
            )
        if file == real:  # the run may have no such file yet, and would read this one as its own
            raise DataError(f"{path} has the name of a file of a run; give the path of another file to write")


def own_files(path: Path) -> list[Path]:
    """Return the files that the run in a directory has written and needs, except the report."""
    names = (CONFIG, ASSIGNMENTS, METRICS, AFFINITY, "features.h5", MANIFEST, UNFINISHED, DECISIONS)
    return [*(path / name for name in names), *(path / CHECKPOINTS).glob("*")]


def files_of(path: Path) -> GuardedFolder:
    """Return the files of a finished run, each of which is checked before it is read."""
    as_it_is = f"to use the files as they are: rm {shlex.quote(str(path / MANIFEST))}"
    return GuardedFolder(path, "restore it from a copy or repeat the run", RunDirectoryError, as_it_is)


class RunDirectory:
    """Write a run directory: files go to a hidden folder inside it, and move out of it on success.

    This is a context manager. An error leaves nothing behind, unless there is a checkpoint of the training.
    In this case the unfinished directory stays, and a note on the error says how to resume.

    Parameters
    ----------
    path : Path
    unfinished : mapping
        The content of ``unfinished.toml``.
    resuming : bool
        Whether to resume an unfinished directory. An error then leaves it as it was.
    made : bool
        Whether the directory itself was made for this run, and goes with it.
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
        made: bool = False,
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
        self.elsewhere: Path | None = None
        """The checkpoint of the resumed run, if it is in another cache than the one that is used now."""
        self.lock: IO[bytes] | None = None
        self.made = made
        check_unfinished(path) if resuming else check_free(path)

    def __enter__(self) -> RunDirectory:
        self.made = self.made or not self.target.exists()
        try:
            self.target.mkdir(parents=True, exist_ok=True)
            self.work_folder.mkdir(exist_ok=True)  # a process that was killed may have left one
            self._begin()
        except BaseException as error:  # also Ctrl-C
            if not self.resuming:
                self._leave_nothing()
            if not isinstance(error, OSError):
                raise
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
        if not self.resuming and not holds_remains_only(self.target):  # another process was faster
            self.lock.close()
            self.lock = None
            check_free(self.path)
        for item in self.work_folder.iterdir():
            noted = self.resuming and item.name == NOTE and item.is_file() and not item.is_symlink()
            if item.name != LOCK and not noted:
                remove(item)
        self.checkpoints.mkdir()
        if self.resuming:  # before the record names the cache of now
            self.elsewhere = self._kept_elsewhere()
        # Nothing but the hidden folder is there before the record is: so a kill leaves what check_free knows.
        record = self.work_folder / UNFINISHED
        write_unfinished(record, self.unfinished)
        record.replace(self.target / UNFINISHED)

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
            if isinstance(error, KeyboardInterrupt):
                error.add_note(NOTHING_WRITTEN)

    def _kept_elsewhere(self) -> Path | None:
        """Return the checkpoint in the cache that the record names, if the cache of now has none."""
        note, now = CheckpointNote.read(self.work_folder), features_folder(self.unfinished.get("cache"))
        if note is None or (now and note.checkpoint(now)):
            return None
        try:
            before = features_folder(read_unfinished(self.target).get("cache"))
            # The record may come from somebody else: look at nothing but at a cache.
            return note.checkpoint(before.absolute()) if before and is_cache(before) else None
        except (OSError, ValueError, TypeError, RecursionError, EbscError):  # the record is damaged
            return None

    def _finish(self) -> None:
        remove(self.work_folder / NOTE)
        write_manifest(self.work_folder, leave_out=(LOCK, DECISIONS))
        for item in sorted(self.work_folder.iterdir(), key=lambda item: item.name == MANIFEST):
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

    def release(self) -> None:
        """Remove the directory if it was made for this run and is still empty."""
        if self.made:
            with suppress(OSError):  # it holds a run, or what another program has put there
                self.target.rmdir()

    def _leave_nothing(self) -> None:
        if self.lock:  # otherwise another process writes here
            with suppress(OSError):
                (self.target / UNFINISHED).unlink(missing_ok=True)
            self._let_go()
        with suppress(OSError):  # it is not empty, or not there
            self.work_folder.rmdir()
        self.release()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn an OSError, as of a full disk, into a RunDirectoryError; leave one of a plugin as it is."""
        try:
            yield
        except OSError as error:
            if origin(error):
                raise
            raise RunDirectoryError(
                f"cannot write {self.path}: {error.strerror or error}; choose another `out`"
            ) from error

    def kept_training(self, file: Path, made_from: Mapping[str, Any]) -> Path:
        """Return the checkpoint that this run has left if it depends on the same, else ``file``.

        Only the resumed run itself may go on from another checkpoint than ``file``, for instance with another
        batch size: somebody else may still train from that one.
        """
        before, now = CheckpointNote.read(self.work_folder), CheckpointNote.of(file, made_from)
        kept = before.checkpoint(file.parent) if before and before.made_from == now.made_from else None
        return kept if kept and not file.exists() else file

    def note_training(self, file: Path, made_from: Mapping[str, Any]) -> list[str]:
        """Note the file for the checkpoint if training ends early, and what the training depends on.

        Returns
        -------
        list of str
            The names of what has changed since a training of this run was kept that cannot go on. It is empty
            if nothing has changed, or if nothing was kept.
        """
        self.training = file
        before, now = CheckpointNote.read(self.work_folder), CheckpointNote.of(file, made_from)
        with self.writing():
            now.write(self.work_folder)
        lost = before and before.checkpoint(file.parent) and not file.exists()
        return before.changes(now) if before and lost else []

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
        """Write ``assignments.csv`` from its columns."""
        write_csv(self.work_folder / ASSIGNMENTS, columns)


def check_free(path: Path) -> None:
    """Raise a RunDirectoryError unless ``path`` is free, an empty folder, or one that a killed run began."""
    if is_unfinished(path):
        raise RunDirectoryError(f"{how_unfinished(path)}, or choose another `out`")
    if path.is_dir():
        if any(path.iterdir()) and not holds_remains_only(path):
            raise RunDirectoryError(f"{path} already holds files; choose another `out` or remove it")
        if is_at_work(path):
            raise RunDirectoryError(at_work(path))
    elif (path.exists() or path.is_symlink()) and not path.is_dir():  # another process may just have made it
        raise RunDirectoryError(f"{path} is a file, not a folder; choose another `out`")


def claim_path(source: str, parts: list[str], seed: int) -> Path:
    """Make an empty directory ``runs/<time>-<source>-<parts>-s<seed>``, which is of this process alone.

    A long name is cut, that of the source first.

    Raises
    ------
    RunDirectoryError
        If it cannot be made.
    """
    components = cut_name("-".join(map(_as_name, parts)), MAX_COMPONENTS)
    stem = cut_name(_as_name(source), MAX_NAME - len(os.fsencode(components)))
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{stem}-{components}-s{seed}"
    for number in count(1):
        path = Path("runs", name if number == 1 else f"{name}-{number}")
        try:
            path.parent.mkdir(exist_ok=True)
            path.mkdir()
        except OSError as error:
            if isinstance(error, FileExistsError) and path.parent.is_dir():
                continue  # the name is taken, maybe by a run that started in the same second
            raise RunDirectoryError(f"cannot create {path}: {error.strerror}; choose another `out`") from None
        return path
    raise AssertionError  # count does not end


def _as_name(part: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in part)

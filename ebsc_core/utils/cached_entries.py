"""List what a cache of trained features holds, and remove what was used least recently.

Only what ebsc has written is listed and removed: in a folder that is marked as its cache, the entries with
the names that it gives. An entry that a command reads is locked, and stays.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ebsc_core.utils.errors import ConfigError, DataError
from ebsc_core.utils.files import lock, remove
from ebsc_core.utils.paths import is_cache

LIMIT = "EBSC_CACHE_LIMIT"
# The file of an entry that its readers lock.
TRAINING = "training.json"
CHECKPOINT_SUFFIX = ".training.safetensors"
KEY = re.compile(r"[0-9a-f]{24}")
# Rows of an extraction that goes on, with the number of the first one.
ROWS = re.compile(rf"({KEY.pattern}\.)\d{{12}}{re.escape(CHECKPOINT_SUFFIX)}")
# A training that goes on.
CHECKPOINT = re.compile(rf"{KEY.pattern}{re.escape(CHECKPOINT_SUFFIX)}")
# What a command leaves that is killed while it writes or removes an entry.
REMAINS = re.compile(r"\.[0-9a-f]{24}\..+")
UNITS = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "KB": 10**3, "B": 1}
# Without a limit, a run says so when the cache is larger.
LARGE = 20 * UNITS["GB"]
# Training that is under way renews its checkpoint more often than this. Where a file system has no locks,
# what was used in this time counts as in use, too.
RECENT_SECONDS = 3600.0


@dataclass(frozen=True)
class CachedEntry:
    """Describe one entry of the cache."""

    files: list[Path]
    """A folder of features and weights, or the file that training resumes from; of an extraction that goes
    on, all files with its rows, in their order."""
    size: int
    """The size in bytes."""
    used: float
    """The time when it was last used, in seconds since 1970."""

    @property
    def path(self) -> Path:
        """The first of the files, which stands for all."""
        return self.files[0]

    @property
    def is_checkpoint(self) -> bool:
        """Whether it is the checkpoint of a training or extraction that was interrupted, or is under way."""
        return self.path.name.endswith(CHECKPOINT_SUFFIX)

    def remove(self) -> bool:
        """Remove the entry unless a command uses it; return whether it is gone."""
        recent = time.time() - self.used < RECENT_SECONDS
        if self.is_checkpoint or self.path.name.startswith("."):
            if not recent:
                for path in self.files:
                    remove(path)
            return not recent
        with (self.path / TRAINING).open("rb") as file:
            free = lock(file, shared=False)
            if free is False or (free is None and recent):
                return False
            # In one step, so that nobody finds half of an entry.
            hidden = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.parent))
            self.path.rename(hidden / "old")
        shutil.rmtree(hidden, ignore_errors=True)
        return True


def entries_of(folder: Path) -> list[CachedEntry]:
    """Return the entries of a cache, the least recently used first.

    Raises
    ------
    DataError
        If the folder is not a cache of ebsc.
    """
    if not folder.is_dir():
        return []
    if not is_cache(folder):
        raise DataError(f"{folder} is not a cache that ebsc has made; give the folder of a --cache")
    groups = defaultdict[str, list[Path]](list)
    for path in sorted(folder.iterdir()):
        if _is_entry(path):
            rows = ROWS.fullmatch(path.name)
            groups[rows[1] if rows else path.name].append(path)
    found = []
    for files in groups.values():
        with suppress(OSError):  # another command may have removed one
            used = max(file.stat().st_mtime for file in files)
            found.append(CachedEntry(files, sum(map(size_of, files)), used))
    return sorted(found, key=lambda entry: entry.used)


def remove_entries(entries: Iterable[CachedEntry]) -> Iterator[CachedEntry]:
    """Remove entries; yield those that are gone. Those in use, or that cannot be removed, stay."""
    for entry in entries:
        with suppress(OSError):
            if entry.remove():
                yield entry


def shrink(folder: Path, limit: int, keep: str = "") -> list[CachedEntry]:
    """Remove the features that were used least recently until they take at most ``limit`` bytes.

    The entry ``keep`` stays. Checkpoints do not count and stay: they may stand for hours of work. Return what
    is gone.
    """
    entries = [entry for entry in entries_of(folder) if not entry.is_checkpoint]
    excess = sum(entry.size for entry in entries) - limit
    gone = list[CachedEntry]()
    for entry in entries:
        if excess <= 0:
            break
        if entry.path.name == keep:
            continue
        removed = list(remove_entries([entry]))
        gone += removed
        excess -= sum(one.size for one in removed)
    return gone


def cache_limit() -> int | None:
    """Return the limit of the cache in bytes that ``EBSC_CACHE_LIMIT`` sets; None without one.

    Raises
    ------
    ConfigError
        If the variable holds no size.
    """
    text = os.environ.get(LIMIT, "").strip()
    if not text or text.lower() == "none":
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?)B?", text.upper())
    if not match:
        raise ConfigError(f"{LIMIT} is {text!r}, which is no size; write for instance 20GB, or none")
    return int(float(match[1]) * UNITS[f"{match[2]}B"])


def in_bytes(size: int) -> str:
    """Write a size for people, e.g. ``3.4 GB``."""
    unit = next((unit for unit in UNITS if size >= UNITS[unit]), "B")
    return f"{size} B" if unit == "B" else f"{size / UNITS[unit]:.1f} {unit}"


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.lstat().st_size for file in files)


def _is_entry(path: Path) -> bool:
    try:
        if path.is_symlink():
            return False
        if path.name.endswith(CHECKPOINT_SUFFIX):
            return path.is_file() and bool(CHECKPOINT.fullmatch(path.name) or ROWS.fullmatch(path.name))
        whole = KEY.fullmatch(path.name) and (path / TRAINING).is_file()
        return bool(whole or (REMAINS.fullmatch(path.name) and path.exists()))
    except OSError:  # a folder that another user has closed
        return False

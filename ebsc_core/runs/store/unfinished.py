"""Describe an unfinished run: what its directory holds, and how the run can be resumed.

``unfinished.toml`` holds the requested configuration, whatever else is needed to repeat the request, and a
table of versions and suppliers like that of ``run.toml``. A hidden folder beside it holds the files until
all of them are complete, and a lock that belongs to the process that writes them. The first line of the
record is a comment with the SHA-256 of the others.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ebsc_core.config.loading import flattened, load_config, write_toml
from ebsc_core.config.schema import COMPONENT_SECTIONS, PROVENANCE, RunConfig
from ebsc_core.config.toml import read_toml
from ebsc_core.utils.errors import ConfigError, RunDirectoryError
from ebsc_core.utils.files import is_locked
from ebsc_core.utils.launched import process_index
from ebsc_core.utils.paths import features_folder, is_cache
from ebsc_core.utils.provenance import provenance

UNFINISHED, WORK, LOCK = "unfinished.toml", ".unfinished", "lock"
SEAL = b"# sha256 "


def unfinished_tables(
    config: RunConfig, requested: Mapping[str, Any], suppliers: Mapping[str, str]
) -> dict[str, Any]:
    """Return the tables of ``unfinished.toml``.

    Parameters
    ----------
    config : RunConfig
    requested : mapping
        The requested configuration as tables, with the names and options of all components and with paths
        that are found from anywhere.
    suppliers : mapping
        Distribution and version of each component.
    """
    tables = dict(requested)
    # The checkpoint is in this cache, even if the default is another one when the run is resumed.
    cache = features_folder(config.cache)
    tables["cache"] = str(cache.absolute()) if cache else "none"
    # The coefficient model decides the settings that are not set here.
    for table in ("refine", "affinity"):
        tables[table] = getattr(config, table).model_dump(mode="json", exclude_unset=True)
    made_with = provenance()
    started = made_with.pop("created")
    record = {"started": started, **made_with, "parts": dict(suppliers)}
    return tables | {PROVENANCE: record}


def write_unfinished(path: Path, tables: Mapping[str, Any]) -> None:
    """Write the tables of ``unfinished.toml``, below the line with their digest."""
    write_toml(path, tables)
    text = path.read_bytes()
    path.write_bytes(SEAL + hashlib.sha256(text).hexdigest().encode() + b"\n" + text)


def read_unfinished(path: Path) -> dict[str, Any]:
    """Return the tables of ``unfinished.toml`` in the directory ``path``, unchecked.

    Raises
    ------
    RunDirectoryError, ConfigError
        If the file is a link, is not the one that was written, or is no TOML.
    """
    _check_links(path)
    _check_seal(path / UNFINISHED)
    return read_toml(path / UNFINISHED)


def _check_links(path: Path) -> None:
    """Raise a RunDirectoryError if one of the files of an unfinished run is a link.

    What it leads to would be overwritten.
    """
    if link := first_link(path):
        raise RunDirectoryError(f"{link} is a link, which may lead anywhere; put the file itself there")


def _check_seal(path: Path) -> None:
    """Raise a RunDirectoryError if the record is not the one that was written.

    Earlier versions wrote no digest.
    """
    if not path.is_file():  # reading a pipe would wait
        raise RunDirectoryError(f"{path} is no file")
    try:
        head, _, text = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise RunDirectoryError(f"cannot read {path}: {error.strerror or error}") from None
    sealed = head.startswith(b"#") or not head  # nothing is left of a file that was cut off at its start
    if sealed and head != SEAL + hashlib.sha256(text).hexdigest().encode():
        raise RunDirectoryError(
            f"{path} is not the file that was written (its checksum differs); restore it from a copy, start "
            "the run anew or, if the change is wanted, remove the first line"
        )


def load_unfinished(path: Path, changes: Mapping[str, Any]) -> RunConfig:
    """Load the configuration of an unfinished run; ``changes`` holds dotted settings that replace its own.

    Raises
    ------
    RunDirectoryError
        If there is no unfinished run at ``path``, if its record is damaged, or if a process writes it now.
    """
    check_unfinished(path)
    _check_seal(path / UNFINISHED)
    try:
        config = load_config(path / UNFINISHED, flags={**changes, "out": str(path)})
    except ConfigError as error:
        raise RunDirectoryError(f"{path / UNFINISHED}: {error}") from None
    cache = features_folder(config.cache)
    # The record may come from somebody else, and the first process of a run writes to its cache.
    if cache and not changes.get("cache") and process_index() == 0 and not is_cache(cache):
        raise RunDirectoryError(
            f"{path / UNFINISHED} names the cache {cache}, which no run of this machine has made; "
            f"if it is right, say `cache={shlex.quote(str(cache))}`"
        )
    return config


def outside(config: RunConfig) -> dict[str, str]:
    """Return the settings that name files and folders, which a run may use outside its directory."""
    tables = config.model_dump(mode="json", exclude={"out"})
    names = {f"{section}.name" for section in COMPONENT_SECTIONS if section != "data"}
    return {
        setting: value
        for setting, value in flattened(tables)
        if isinstance(value, str) and os.sep in value and setting not in names
    }


def is_unfinished(path: Path) -> bool:
    """Return whether there is a run at ``path`` that was started and not finished."""
    return (path / UNFINISHED).is_file()


def is_at_work(path: Path) -> bool:
    """Return whether a process writes the run directory ``path`` now."""
    return is_locked(path / WORK / LOCK)


def at_work(path: Path) -> str:
    """Return the message about a run that a process writes now."""
    return f"{path} is being written by another process; wait for it"


def how_unfinished(path: Path) -> str:
    """Return the message about an unfinished run."""
    if is_at_work(path):
        return at_work(path)
    return f"{path} is unfinished; to go on: ebsc resume {shlex.quote(str(path))}"


def holds_remains_only(path: Path) -> bool:
    """Return whether a folder holds only what a run leaves that is killed before its record is there."""
    work = path / WORK
    return list(path.iterdir()) == [work] and work.is_dir() and first_link(path) is None


def first_link(path: Path) -> Path | None:
    """Return the first of the files of an unfinished run that is a symbolic link, if one is."""
    own = (path / UNFINISHED, path / WORK, path / WORK / LOCK)
    return next((file for file in own if file.is_symlink()), None)


def check_folder(path: Path, advice: str) -> None:
    """Raise a RunDirectoryError, which ends with ``advice``, unless ``path`` is a folder."""
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise RunDirectoryError(f"{path} {what}; {advice}")


def check_unfinished(path: Path) -> None:
    """Raise a RunDirectoryError unless ``path`` is an unfinished run that no process writes now."""
    check_folder(path, "give the directory of an unfinished run")
    if not is_unfinished(path):
        finished = (path / "run.toml").is_file()
        what = "is finished; nothing is left to do" if finished else "holds no run"
        raise RunDirectoryError(f"{path} {what}")
    _check_links(path)
    if is_at_work(path):
        raise RunDirectoryError(at_work(path))

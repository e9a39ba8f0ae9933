"""Describe an unfinished run: what its directory holds, and how the run can be resumed.

``unfinished.toml`` holds the requested configuration, whatever else is needed to repeat the request, and a
table of versions and suppliers like that of ``run.toml``. A hidden folder beside it holds the files until
all of them are complete, and a lock that belongs to the process that writes them.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ebsc_core.config.loading import load_config
from ebsc_core.config.schema import PROVENANCE, RunConfig
from ebsc_core.utils.errors import ConfigError, RunDirectoryError
from ebsc_core.utils.files import is_locked
from ebsc_core.utils.paths import features_folder
from ebsc_core.utils.provenance import provenance

UNFINISHED, WORK, LOCK = "unfinished.toml", ".unfinished", "lock"


def unfinished_tables(
    config: RunConfig, requested: Mapping[str, Any], suppliers: Mapping[str, str]
) -> dict[str, Any]:
    """Return the tables of ``unfinished.toml``.

    Parameters
    ----------
    config : RunConfig
    asked : mapping
        The requested configuration as tables, with the names and options of all components.
    suppliers : mapping
        Distribution and version of each component.
    """
    tables = dict(requested)
    # The checkpoint is in this cache, even if the default is another one when the run is resumed.
    cache = features_folder(config.cache)
    tables["cache"] = str(cache.absolute()) if cache else "none"
    # The coefficient model decides the settings that are not set here.
    tables["refine"] = config.refine.model_dump(mode="json", exclude_unset=True)
    if config.data.root:
        tables["data"] = tables["data"] | {"root": str(Path(os.path.expanduser(config.data.root)).absolute())}
    made_with = provenance()
    started = made_with.pop("created")
    record = {"started": started, **made_with, "parts": dict(suppliers)}
    return tables | {PROVENANCE: record}


def load_unfinished(path: Path, changes: Mapping[str, Any]) -> RunConfig:
    """Load the configuration of an unfinished run; ``changes`` holds dotted settings that replace its own.

    Raises
    ------
    RunDirectoryError
        If there is no unfinished run at ``path``, if its record is damaged, or if a process writes it now.
    """
    check_unfinished(path)
    try:
        return load_config(path / UNFINISHED, flags={**changes, "out": str(path)})
    except ConfigError as error:
        raise RunDirectoryError(f"{path / UNFINISHED}: {error}") from None


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


def check_unfinished(path: Path) -> None:
    """Raise a RunDirectoryError unless ``path`` is an unfinished run that no process writes now."""
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise RunDirectoryError(f"{path} {what}; give the directory of an unfinished run")
    if not is_unfinished(path):
        finished = (path / "run.toml").is_file()
        what = "is finished; nothing is left to do" if finished else "holds no run"
        raise RunDirectoryError(f"{path} {what}")
    if is_at_work(path):
        raise RunDirectoryError(at_work(path))

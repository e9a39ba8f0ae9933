"""A run that is not finished: what its directory holds until it is, and how it goes on.

``unfinished.toml`` is the configuration as it was asked for, with what else is needed to say the same again,
and a table of versions and suppliers like that of ``run.toml``. The hidden folder beside it is where files
lie until all are there, with a lock that the process at work holds.
"""

from __future__ import annotations

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
    """The tables of ``unfinished.toml``.

    Parameters
    ----------
    config : RunConfig
    requested : mapping
        The same as tables, with the names and options of all parts.
    suppliers : mapping
        Distribution and version of each part.
    """
    tables = dict(requested)
    # Training is kept there, wherever the default may be when it goes on.
    cache = features_folder(config.cache)
    tables["cache"] = str(cache.absolute()) if cache else "none"
    # What is not set here is as the coefficient model wants it.
    tables["refine"] = config.refine.model_dump(mode="json", exclude_unset=True)
    if config.data.root:
        tables["data"] = tables["data"] | {"root": str(Path(config.data.root).expanduser().absolute())}
    made_with = provenance()
    started = made_with.pop("created")
    record = {"started": started, **made_with, "parts": dict(suppliers)}
    return tables | {PROVENANCE: record}


def load_unfinished(path: Path, changes: Mapping[str, Any]) -> RunConfig:
    """What an unfinished run was told, with dotted settings that are to differ now, as for going on.

    Raises
    ------
    RunDirectoryError
        If there is no unfinished run at ``path``, its record is damaged, or a process is at work in it.
    """
    check_unfinished(path)
    try:
        return load_config(path / UNFINISHED, flags={**changes, "out": str(path)})
    except ConfigError as error:
        raise RunDirectoryError(f"{path / UNFINISHED}: {error}") from None


def is_unfinished(path: Path) -> bool:
    """Whether there is a run at ``path`` that was begun and not finished."""
    return (path / UNFINISHED).is_file()


def is_at_work(path: Path) -> bool:
    """Whether a process is at work in the run directory ``path``."""
    return is_locked(path / WORK / LOCK)


def at_work(path: Path) -> str:
    """What to say of a run that has a process."""
    return f"{path} is being written by another process; wait for it"


def how_unfinished(path: Path) -> str:
    """What to say of an unfinished run."""
    if is_at_work(path):
        return at_work(path)
    return f"{path} is unfinished; to go on: ebsc resume {shlex.quote(str(path))}"


def check_unfinished(path: Path) -> None:
    """Raise a RunDirectoryError unless ``path`` is an unfinished run that no process is at work in."""
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise RunDirectoryError(f"{path} {what}; give the directory of an unfinished run")
    if not is_unfinished(path):
        finished = (path / "run.toml").is_file()
        what = "is finished; nothing is left to do" if finished else "holds no run"
        raise RunDirectoryError(f"{path} {what}")
    if is_at_work(path):
        raise RunDirectoryError(at_work(path))

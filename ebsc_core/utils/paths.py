"""Locate the folders that are kept between runs: the user's cache and its features."""

from __future__ import annotations

import os
from pathlib import Path

from ebsc_core.utils.errors import ConfigError, DataError
from ebsc_core.utils.files import written_whole

# What marks a folder as a cache.
TAG, SIGNATURE = "CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55"


def existing_file(name: str) -> Path:
    """Return the path of a file.

    Raises
    ------
    DataError
        If it is not there or is no file.
    """
    path = Path(os.path.expanduser(name))  # unlike Path.expanduser, takes any name
    if os.path.isdir(path):
        raise DataError(f"{path} is a folder, not a file; if it holds images, `ebsc run` clusters them")
    if not os.path.isfile(path):
        raise DataError(f"{path} does not exist or is not a file")
    return path


def user_cache() -> Path:
    """Return ``$EBSC_CACHE_DIR`` if it is set, otherwise ``ebsc`` in the user's cache folder.

    Raises
    ------
    ConfigError
        If this user has no home folder, as in some containers.
    """
    if own := os.environ.get("EBSC_CACHE_DIR"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if base.startswith("~"):
        raise ConfigError("this user has no home folder for the cache; set EBSC_CACHE_DIR to a folder")
    return Path(base) / "ebsc"


def data_folder() -> Path:
    """Return the folder of named data sets, unless a run names another."""
    return user_cache() / "data"


def mark_cache(folder: Path) -> None:
    """Mark a folder as a cache, for backup programs (https://bford.info/cachedir/) and for :func:`is_cache`.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / TAG).exists():
        with written_whole(folder / TAG) as temporary_path:
            temporary_path.write_text(
                f"{SIGNATURE}\n# Features that ebsc keeps for reuse. They may be deleted.\n"
            )


def is_cache(folder: Path) -> bool:
    """Return whether a folder is the user's own cache of features, or one that a run has marked."""
    tag = folder / TAG
    own = features_folder(None)
    if own and folder.absolute() == own.absolute():
        return True
    try:
        return tag.is_file() and tag.read_text(encoding="utf-8").startswith(SIGNATURE)
    except (OSError, UnicodeDecodeError):
        return False


def features_folder(cache: str | None) -> Path | None:
    """Return the folder of reusable features for the setting ``cache``; None if it is ``none``."""
    if cache == "none":
        return None
    return Path(os.path.expanduser(cache)) if cache else user_cache() / "features"

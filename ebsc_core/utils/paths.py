"""Locate the folders that are kept between runs: the user's cache and its features."""

from __future__ import annotations

import os
from pathlib import Path

from ebsc_core.utils.errors import ConfigError


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


def features_folder(cache: str | None) -> Path | None:
    """Return the folder of reusable features for the setting ``cache``; None if it is ``none``."""
    if cache == "none":
        return None
    return Path(os.path.expanduser(cache)) if cache else user_cache() / "features"

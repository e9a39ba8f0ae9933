"""Locate the folders that are kept between runs: the user's cache and its features."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """Return ``$EBSC_CACHE_DIR`` if it is set, otherwise ``ebsc`` in the user's cache folder."""
    own = os.environ.get("EBSC_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(base) / "ebsc"


def features_folder(cache: str | None) -> Path | None:
    """Return the folder of reusable features for the setting ``cache``; None if it is ``none``."""
    if cache == "none":
        return None
    return Path(cache).expanduser() if cache else user_cache() / "features"

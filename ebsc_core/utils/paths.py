"""Where what is kept between runs lies: the user's cache, and features in it."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """``$EBSC_CACHE_DIR``, or ``ebsc`` in the user's cache folder."""
    own = os.environ.get("EBSC_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(base) / "ebsc"


def features_folder(cache: str | None) -> Path | None:
    """Where features are kept for reuse, by the setting of that name; None for nowhere."""
    if cache == "none":
        return None
    return Path(cache).expanduser() if cache else user_cache() / "features"

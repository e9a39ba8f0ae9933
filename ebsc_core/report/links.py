"""Link the pictures of a page to the files of their images, where these are files in a folder."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from ebsc_core.runs.store.saved import SavedRun


def folder_of_images(run: SavedRun) -> Path | None:
    """Return the folder of a run's images; None if they are in an archive or an array, or are not known."""
    features = run.config.features
    name = features.images if features else run.config.data.name
    folder = Path(os.path.expanduser(name or ""))
    return folder if name and folder.is_dir() else None


def link(folder: Path | None, name: str, page: Path) -> str | None:
    """Return the relative address of an image, as seen from the folder of the page; None without a file."""
    if folder is None or not (folder / name).is_file():
        return None
    try:
        path = os.path.relpath(os.path.realpath(folder / name), os.path.realpath(page))
    except ValueError:  # on Windows, another drive
        return None
    return quote(os.fsencode(path.replace(os.sep, "/")))

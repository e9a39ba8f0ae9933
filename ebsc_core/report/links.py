"""Link the pictures of a page to the files of their images, where these are files in a folder."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote


def link(folder: Path | None, name: str, page: Path) -> str | None:
    """Return the relative address of an image, as seen from the folder of the page; None without a file."""
    if folder is None or not (folder / name).is_file():
        return None
    try:
        path = os.path.relpath(os.path.realpath(folder / name), os.path.realpath(page))
    except ValueError:  # on Windows, another drive
        return None
    return quote(os.fsencode(path.replace(os.sep, "/")))

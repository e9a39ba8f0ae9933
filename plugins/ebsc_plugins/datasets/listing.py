"""Decide which files are images, and count what is left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

from PIL import Image

from ebsc_core import image_formats, image_suffixes, printable

# Folders of systems and programs: thumbnails and deleted files, besides those whose name begins with a dot.
SYSTEM = frozenset(
    {
        *("__macosx", "@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot"),
        *("$recycle.bin", "system volume information", "lost+found"),
    }
)
# Files without a suffix are images if they begin as these formats do.
BY_CONTENT = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")
# What reads further types, once it is installed.
READERS = {".heic": "pillow-heif", ".heif": "pillow-heif"}
NAMED = 3


class Listing:
    """Collect the names of image files; count everything else."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._others: Counter[str] = Counter()
        self._hidden_files = 0
        self._hidden: dict[str, None] = {}
        self._closed: list[OSError] = []

    def add(self, name: str, beginning: Callable[[], bytes]) -> None:
        """Add a file by its path inside, with ``/``; ``beginning`` reads its first bytes."""
        suffix = os.path.splitext(name)[1].lower()
        if name.rpartition("/")[2].startswith("."):
            self._hidden_files += suffix in image_suffixes()
        elif suffix in image_suffixes() or (not suffix and _begins_as_image(beginning)):
            self.names.append(name)
        else:
            self._others[suffix or "without a suffix"] += 1

    def enters(self, folder: str) -> bool:
        """Tell whether a folder, by its path inside, may hold images; count it if not."""
        parts: list[str] = []
        for part in folder.split("/"):
            parts.append(part)
            if part not in ("", ".") and (part.startswith(".") or part.lower() in SYSTEM):
                self._hidden["/".join(parts)] = None
                return False
        return True

    def closed(self, error: OSError) -> None:
        """Count a folder that cannot be opened."""
        self._closed.append(error)

    def left_out(self) -> str:
        """Say on one line what was left out; empty if it was nothing."""
        said = []
        if self._closed:
            first = self._closed[0]
            why = f"{first.filename}: {first.strerror or first}"
            said.append(f"{_count(len(self._closed), 'folder')} that cannot be opened ({why})")
        if self._others:
            said.append(f"{_count(self._others.total(), 'file')} of other types ({self._types()})")
        if self._hidden:
            names = [folder.rpartition("/")[2] for folder in self._hidden]
            said.append(f"{_count(len(names), 'hidden folder')} ({_some(list(dict.fromkeys(names)))})")
        if self._hidden_files:
            said.append(_count(self._hidden_files, "hidden image"))
        return printable("; ".join(said))

    def _types(self) -> str:
        types = [f"{count} {suffix}" for suffix, count in self._others.most_common()]
        packages = {READERS[suffix] for suffix in self._others if suffix in READERS}
        advice = f"; `pip install {' '.join(packages)}` reads more of them" if packages else ""
        return _some(types) + advice


def _begins_as_image(beginning: Callable[[], bytes]) -> bool:
    try:
        start = beginning()
    except Exception:  # whatever is wrong with it, it has no name of an image
        return False
    known = set(image_formats()) & set(BY_CONTENT)
    accepting = (accept for kind, (_, accept) in Image.OPEN.items() if kind in known and accept)
    return any(accept(start) is True for accept in accepting)


def _count(number: int, unit: str) -> str:
    return f"{number:,} {unit}{'s' * (number != 1)}"


def _some(words: list[str]) -> str:
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return ", ".join(words[:NAMED]) + more

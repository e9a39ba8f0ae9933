"""Tell how large the files of images are, where the images are files of a folder or of a zip."""

from __future__ import annotations

import os
import zipfile
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ebsc_core.data.images.decoding import ImageHeader, read_header

# Besides OSError, a zip that is damaged or encrypted raises these.
UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, zipfile.BadZipFile)


class Size(NamedTuple):
    """Hold the size of an image file; zeros if it is not known."""

    width: int = 0
    height: int = 0
    stored: int = 0
    """Bytes of the file."""

    @property
    def order(self) -> tuple[int, int]:
        """The key that sorts the image with most pixels, then with most bytes, first."""
        return (-self.width * self.height, -self.stored)


class Originals:
    """Look at the files behind the names of images.

    Parameters
    ----------
    place : str
        The folder or zip that the names are relative to; empty if the names are paths themselves. Any other
        place has no files, and all sizes are unknown.
    """

    def __init__(self, place: str) -> None:
        self.place = Path(os.path.expanduser(place))

    def size(self, name: str) -> Size:
        """Return the size of an image file, from its header."""
        with suppress(*UNREADABLE):
            if self._archive:
                with self._archive.open(name) as member:
                    return _size(member, self._archive.getinfo(name).file_size)  # type: ignore[arg-type]
            path = self.place / name
            if self.place.is_dir() and path.is_file():  # reading a pipe might never end
                with path.open("rb") as file:
                    return _size(file, path.stat().st_size)
        return Size()

    @cached_property
    def _archive(self) -> zipfile.ZipFile | None:
        with suppress(*UNREADABLE):
            if self.place.suffix.lower() == ".zip" and self.place.is_file():
                return zipfile.ZipFile(self.place)
        return None


def _size(file: BinaryIO, stored: int) -> Size:
    header = read_header(file)
    return Size(header.width, header.height, stored) if isinstance(header, ImageHeader) else Size()

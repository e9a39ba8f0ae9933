"""Look at the files of images, where these are files of a folder or of a zip: their sizes and pixels."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ebsc_core.data.images.decoding import ImageHeader, decode_image, read_header
from ebsc_core.data.images.workers import BadImage

# Besides OSError, a zip that is damaged or encrypted raises these.
UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, zipfile.BadZipFile)


class Size(NamedTuple):
    """Hold the size of an image file; zeros if it is not known."""

    width: int = 0
    height: int = 0
    stored: int = 0
    """Bytes of the file."""
    linked: bool = False
    """True if the name leads to the file by a symbolic link."""

    @property
    def order(self) -> tuple[int, int, bool]:
        """The key that sorts the image with most pixels, then with most bytes, first; of equals, a file.

        Whoever keeps a link and deletes the file that it leads to has lost the image.
        """
        return (-self.width * self.height, -self.stored, self.linked)


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
        with suppress(*UNREADABLE), self._opened(name) as (file, stored):
            header = read_header(file)
            if isinstance(header, ImageHeader):
                return Size(header.width, header.height, stored, self._linked(name))
        return Size()

    def pixels(self, name: str, size: Size) -> bytes:
        """Return a digest of all pixels of an image file of this size; empty if it cannot be read."""
        with suppress(*UNREADABLE, BadImage), self._opened(name) as (file, stored):
            pixels = decode_image(file, stored, (3, size.height, size.width))
            return hashlib.blake2b(pixels.tobytes()).digest()
        return b""

    def _linked(self, name: str) -> bool:
        """Return whether a link lies between the folder and the file of an image."""
        if self._archive:
            return False
        direct = os.path.normpath(os.path.join(os.path.realpath(self.place), name))
        return os.path.realpath(self.place / name) != direct

    @contextmanager
    def _opened(self, name: str) -> Iterator[tuple[BinaryIO, int]]:
        """Open an image file; yield it with its bytes where it is stored."""
        if self._archive:
            with self._archive.open(name) as member:
                yield member, self._archive.getinfo(name).file_size  # type: ignore[misc]
            return
        path = self.place / name
        if not (self.place.is_dir() and path.is_file()):  # reading a pipe might never end
            raise FileNotFoundError(name)
        with path.open("rb") as file:
            yield file, path.stat().st_size

    @cached_property
    def _archive(self) -> zipfile.ZipFile | None:
        with suppress(*UNREADABLE):
            if self.place.suffix.lower() == ".zip" and self.place.is_file():
                return zipfile.ZipFile(self.place)
        return None

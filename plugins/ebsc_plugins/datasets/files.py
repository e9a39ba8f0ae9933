"""List the image files of a folder or a zip, and read their bytes one by one."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from ebsc_core import DataError
from ebsc_plugins.datasets.packed_names import Names

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
# Besides OSError, reading raises these errors for zip members that are damaged, encrypted, or compressed in
# a way that Python does not know (RuntimeError).
UNREADABLE = (OSError, RuntimeError, zipfile.BadZipFile, zlib.error)


class Files(ABC):
    """Provide named files. Objects are light to pickle, since other processes read the files, too."""

    path: Path
    names: Names
    """The sorted paths inside, with ``/``."""

    @abstractmethod
    def content(self, position: int) -> bytes:
        """Read the bytes of a file.

        Raises
        ------
        OSError, RuntimeError, BadZipFile, zlib.error
            If the file is unreadable; see :data:`UNREADABLE`.
        """

    @abstractmethod
    def states(self, positions: np.ndarray) -> np.ndarray:
        """Return numbers ``(M, 2)`` int64 that change when the files at these positions change."""

    def where(self, position: int) -> str:
        """Return the path of a file as one printable line, whatever characters its name has."""
        text = str(self.path / self.names[position])
        return text if text.isprintable() else repr(text)


class FolderFiles(Files):
    """List all image files under a folder, and follow links."""

    def __init__(self, path: Path) -> None:
        self.path, names = path, []
        for folder, subfolders, files in os.walk(path, followlinks=True):
            inside = os.path.relpath(folder, path).replace(os.sep, "/")
            prefix = "" if inside == "." else f"{inside}/"
            names += [name for file in files if is_image(name := prefix + file)]
            # A link to a parent folder would cause an endless loop.
            here = Path(folder)
            subfolders[:] = [name for name in subfolders if not _leads_back(here, here / name)]
        self.names = Names(sorted(names))

    def content(self, position: int) -> bytes:
        path = self.path / self.names[position]
        # Reading a pipe or device might never end.
        if path.exists() and not path.is_file():
            raise OSError("not a regular file")
        return path.read_bytes()

    def states(self, positions: np.ndarray) -> np.ndarray:
        """Return sizes and modification times; -1 for missing files."""
        found = np.full((len(positions), 2), -1, dtype=np.int64)
        for row, position in enumerate(positions.tolist()):
            try:
                state = os.stat(self.path / self.names[position])
            except OSError:
                continue
            found[row] = state.st_size, state.st_mtime_ns
        return found


class ZipFiles(Files):
    """List the image members of a zip.

    The class records the positions of members once. For a million members, Python needs ten seconds and a
    gigabyte to read the list, in each process that opens the archive.

    Raises
    ------
    DataError
        If the file does not exist or is not a zip.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise DataError(f"{path} does not exist or is not a file")
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.NameToInfo  # the last one of each name
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{path} is not a readable zip ({error})") from None
        chosen = sorted(filter(is_image, members))
        self.path, self.names = path, Names(chosen)
        rows = [
            (m.header_offset, m.compress_size, m.file_size, m.compress_type, m.CRC, m.flag_bits & 1)
            for m in map(members.__getitem__, chosen)
        ]
        self.members = torch.tensor(rows, dtype=torch.int64).reshape(-1, 6)

    def content(self, position: int) -> bytes:
        offset, packed, size, method, checksum, encrypted = self.members[position].tolist()
        if encrypted:
            raise RuntimeError("encrypted")
        if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # rare
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(self.names[position])
        with self.path.open("rb") as file:
            file.seek(member_start(file, offset))
            content = file.read(packed)
        if method == zipfile.ZIP_DEFLATED:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size or 1)
        if zlib.crc32(content) != checksum:
            raise zipfile.BadZipFile("its checksum is wrong")
        return content

    def states(self, positions: np.ndarray) -> np.ndarray:
        """Return sizes and checksums."""
        return self.members[torch.from_numpy(positions)][:, [2, 4]].numpy()


def member_start(file: BinaryIO, offset: int) -> int:
    """Return the position of a zip member's data; ``offset`` is the position of its header."""
    file.seek(offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\3\4":
        raise zipfile.BadZipFile("its header is damaged")
    name, extra = struct.unpack("<HH", header[26:])
    return offset + 30 + int(name) + int(extra)


def is_image(name: str) -> bool:
    """Tell whether a path inside, with ``/``, has a known type and is not hidden."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
    return os.path.splitext(name)[1].lower() in SUFFIXES and not hidden


def _leads_back(folder: Path, link: Path) -> bool:
    return link.is_symlink() and folder.resolve().is_relative_to(link.resolve())

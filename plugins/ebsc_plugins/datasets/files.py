"""The image files of a folder or a zip: their names, and their bytes one by one."""

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
# What reading raises beside OSError: zip members that are damaged, encrypted or compressed in a way Python
# does not know (RuntimeError).
UNREADABLE = (OSError, RuntimeError, zipfile.BadZipFile, zlib.error)


class Files(ABC):
    """Named files. Light to pickle: other processes read them, too."""

    path: Path
    names: Names
    """Paths inside, with ``/``, sorted."""

    @abstractmethod
    def content(self, position: int) -> bytes:
        """The bytes of a file.

        Raises
        ------
        OSError, RuntimeError, BadZipFile, zlib.error
            As :data:`UNREADABLE` has it.
        """

    @abstractmethod
    def states(self, positions: np.ndarray) -> np.ndarray:
        """Numbers ``(M, 2)`` int64 that change when the files at these positions do."""

    def where(self, position: int) -> str:
        """The path of a file on one line, whatever its name is made of."""
        text = str(self.path / self.names[position])
        return text if text.isprintable() else repr(text)


class FolderFiles(Files):
    """All image files under a folder; links are followed."""

    def __init__(self, path: Path) -> None:
        self.path, names = path, []
        for folder, subfolders, files in os.walk(path, followlinks=True):
            inside = os.path.relpath(folder, path).replace(os.sep, "/")
            prefix = "" if inside == "." else f"{inside}/"
            names += [name for file in files if is_image(name := prefix + file)]
            # A link to a folder above would lead round for ever.
            here = Path(folder)
            subfolders[:] = [name for name in subfolders if not _leads_back(here, here / name)]
        self.names = Names(sorted(names))

    def content(self, position: int) -> bytes:
        path = self.path / self.names[position]
        # A pipe or device would be read for ever.
        if path.exists() and not path.is_file():
            raise OSError("not a regular file")
        return path.read_bytes()

    def states(self, positions: np.ndarray) -> np.ndarray:
        """Sizes and times of change; -1 for what is not there."""
        found = np.full((len(positions), 2), -1, dtype=np.int64)
        for row, position in enumerate(positions.tolist()):
            try:
                state = os.stat(self.path / self.names[position])
            except OSError:
                continue
            found[row] = state.st_size, state.st_mtime_ns
        return found


class ZipFiles(Files):
    """The image members of a zip.

    Where members lie is noted once: of a million, their list takes Python ten seconds and a gigabyte to read,
    in each process that opens the archive.

    Raises
    ------
    DataError
        If it is not there or no zip.
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
        """Sizes and checksums."""
        return self.members[torch.from_numpy(positions)][:, [2, 4]].numpy()


def member_start(file: BinaryIO, offset: int) -> int:
    """Where the data of a zip's member begin, whose own header is at ``offset``."""
    file.seek(offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\3\4":
        raise zipfile.BadZipFile("its header is damaged")
    name, extra = struct.unpack("<HH", header[26:])
    return offset + 30 + int(name) + int(extra)


def is_image(name: str) -> bool:
    """Whether a path inside, with ``/``, is of a known type and not hidden."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
    return os.path.splitext(name)[1].lower() in SUFFIXES and not hidden


def _leads_back(folder: Path, link: Path) -> bool:
    return link.is_symlink() and folder.resolve().is_relative_to(link.resolve())

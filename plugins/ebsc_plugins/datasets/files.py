"""List the image files of a folder or a zip, and open them one by one."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from ebsc_core import DataError, fault_of
from ebsc_plugins.datasets.listing import Listing
from ebsc_plugins.datasets.packed_names import Names

# Besides OSError, reading raises these errors for zip members that are damaged, encrypted, or compressed in
# a way that Python does not know (RuntimeError).
UNREADABLE = (OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)
# A member of a zip is unpacked in memory. If it is large, it must be large in the zip, too.
FREE_MEMBER, RATIO, LARGEST_MEMBER = 2**25, 100, 2**29
# Ways of compression that are read directly.
DIRECT = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
MAX_INT = 2**63 - 1
# The flag of a member whose name is UTF-8.
UTF8 = 0x800
# Bytes that tell the format of an image.
BEGINNING = 16


class Files(ABC):
    """Provide named files. Objects are light to pickle, since other processes read the files, too."""

    path: Path
    names: Names
    """The sorted paths inside, with ``/``."""
    left_out: str
    """What else there is, on one line; empty if there is nothing."""

    @abstractmethod
    def open(self, position: int) -> tuple[BinaryIO, int]:
        """Open a file; return it with the bytes that it takes where it is stored.

        Raises
        ------
        OSError, ValueError, RuntimeError, BadZipFile, zlib.error
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
        self.path, listing = path, Listing()
        for folder, subfolders, files in os.walk(path, followlinks=True, onerror=listing.closed):
            inside = os.path.relpath(folder, path).replace(os.sep, "/")
            prefix = "" if inside == "." else f"{inside}/"
            here = Path(folder)
            for file in files:
                listing.add(prefix + file, partial(_beginning, here / file))
            walked = [part for part in (here, *here.parents) if part.is_relative_to(path)]
            subfolders[:] = [
                name
                for name in subfolders
                if listing.enters(prefix + name) and not _leads_back(walked, here / name)
            ]
        self.names, self.left_out = Names(sorted(listing.names)), listing.left_out()

    def open(self, position: int) -> tuple[BinaryIO, int]:
        file = _regular(self.path / self.names[position])
        return file, os.fstat(file.fileno()).st_size

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
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise DataError(f"{path} is not a readable zip ({fault_of(error)})") from None
        self.path, listing = path, Listing()
        with path.open("rb") as file:
            for name, member in members.items():
                if not member.is_dir() and listing.enters(os.path.dirname(name)):
                    listing.add(name, partial(_unpacked_beginning, file, _entry(member)))
        chosen = sorted(listing.names)
        self.names, self.left_out = Names(chosen), listing.left_out()
        rows = [_entry(members[name]) for name in chosen]
        self.members = torch.tensor(rows, dtype=torch.int64).reshape(-1, 7)

    def open(self, position: int) -> tuple[BinaryIO, int]:
        entry = self.members[position].tolist()
        packed, size, method = entry[1:4]
        if method in DIRECT:
            with self.path.open("rb") as file:
                content = _unpacked(file, entry)
        elif size > FREE_MEMBER:
            raise RuntimeError("too large for its rare way of compression")
        else:
            with zipfile.ZipFile(self.path) as archive:
                content = archive.read(self.names[position])
        return io.BytesIO(content), packed

    def states(self, positions: np.ndarray) -> np.ndarray:
        """Return sizes and checksums."""
        return self.members[torch.from_numpy(positions)][:, [2, 4]].numpy()


def _regular(path: Path) -> BinaryIO:
    """Open a file; reading a pipe or device might never end."""
    if path.exists() and not path.is_file():
        raise OSError("not a regular file")
    return path.open("rb")


def _beginning(path: Path) -> bytes:
    with _regular(path) as file:
        return file.read(BEGINNING)


def _entry(member: zipfile.ZipInfo) -> tuple[int, ...]:
    numbers = (member.header_offset, member.compress_size, member.file_size, member.compress_type, member.CRC)
    name = member.orig_filename.encode("utf-8" if member.flag_bits & UTF8 else "cp437")
    return *(min(number, MAX_INT) for number in numbers), member.flag_bits & 1, zlib.crc32(name)


def _unpacked(file: BinaryIO, entry: Sequence[int]) -> bytes:
    """Read a member of a zip that is open as ``file``."""
    offset, packed, size, method, checksum, encrypted, name = entry
    if encrypted:
        raise RuntimeError("encrypted")
    if size > min(LARGEST_MEMBER, max(FREE_MEMBER, RATIO * packed)):
        raise zipfile.BadZipFile(f"it says that {packed} bytes unpack to {size}, which is too much")
    file.seek(member_start(file, offset, name))
    content = file.read(min(packed, os.fstat(file.fileno()).st_size))
    if method == zipfile.ZIP_DEFLATED:
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size or 1)
    if zlib.crc32(content) != checksum:
        raise zipfile.BadZipFile("its checksum is wrong")
    return content


def _unpacked_beginning(file: BinaryIO, entry: Sequence[int]) -> bytes:
    offset, packed, _, method, _, encrypted, name = entry
    if encrypted or method not in DIRECT:
        return b""
    file.seek(member_start(file, offset, name))
    content = file.read(min(packed, 16 * BEGINNING))
    if method == zipfile.ZIP_DEFLATED:
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, BEGINNING)
    return content[:BEGINNING]


def member_start(file: BinaryIO, offset: int, name_checksum: int | None = None) -> int:
    """Return the position of a zip member's data; ``offset`` is the position of its header.

    Raises
    ------
    BadZipFile
        If there is no header, or it has another name than the directory of the archive.
    """
    file.seek(offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\3\4":
        raise zipfile.BadZipFile("its header is damaged")
    length, extra = struct.unpack("<HH", header[26:])
    if name_checksum is not None and zlib.crc32(file.read(length)) != name_checksum:
        raise zipfile.BadZipFile("the directory of the archive has another name for it")
    return offset + 30 + int(length) + int(extra)


def _leads_back(walked: Sequence[Path], link: Path) -> bool:
    """Return whether a path is a link to one of the folders on the way to it, or above one: a loop."""
    if not link.is_symlink():
        return False
    target = link.resolve()
    return any(folder.resolve().is_relative_to(target) for folder in walked)

"""Read texts of variable length from an HDF5 file that may be damaged.

Such texts lie in heaps, apart from the data set, which holds their lengths and places. The HDF5 library
trusts both: a wrong length makes it allocate up to 4 GiB per text, and a damaged heap makes it search
without end. So this module reads the heaps itself. Format: "HDF5 File Format Specification", III.E.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

DEFLATE, SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE
OBJECT_HEADER = 8  # bytes of an object in a heap before its size: index, reference count, reserved


def read_texts(path: Path, data: h5py.Dataset) -> list[str]:
    """Return the texts of a data set ``(N,)`` or ``(N, 1)``; equal places share their text.

    Raises
    ------
    ValueError, OSError
        If the data set is damaged, holds no texts, or is compressed in an unusual way.
    """
    if h5py.check_string_dtype(data.dtype) is None:
        raise ValueError(f"{data.name!r} holds no texts")
    properties = data.file.id.get_create_plist()
    address_bytes, size_bytes = properties.get_sizes()
    kind = np.dtype([("length", "<u4"), ("address", f"<u{address_bytes}"), ("index", "<u4")])
    places = np.frombuffer(_stored(path, data, kind.itemsize), kind).tolist()
    texts: dict[tuple[int, int, int], str] = {}
    with path.open("rb") as file:
        heaps = _Heaps(file, path.stat().st_size, properties.get_userblock(), size_bytes)
        for place in places:
            if place not in texts:
                texts[place] = heaps.read(*place).decode("utf-8", "surrogateescape")
    return [texts[place] for place in places]


class _Heaps:
    """Hold the heaps of a file that were read; together they are not longer than the file."""

    def __init__(self, file: IO[bytes], size: int, base: int, size_bytes: int) -> None:
        self.file, self.left, self.base, self.size_bytes = file, size, base, size_bytes
        self.heaps: dict[int, dict[int, bytes]] = {}

    def read(self, length: int, address: int, index: int) -> bytes:
        if not length:
            return b""
        if address not in self.heaps:
            self.heaps[address] = self._heap(address)
        content = self.heaps[address].get(index, b"")
        if len(content) < length:
            raise ValueError("a text is not where the file says")
        return content[:length]

    def _heap(self, address: int) -> dict[int, bytes]:
        """Return the objects of the heap at an address, by their numbers."""
        head = OBJECT_HEADER + self.size_bytes
        self.file.seek(self.base + address)
        start = self.file.read(head)
        size = int.from_bytes(start[8:], "little")
        if start[:5] != b"GCOL\1" or not head < size <= self.left:
            raise ValueError("a heap of its texts is damaged")
        self.left -= size
        content = self.file.read(size - head)
        found, position = {}, 0
        while position + head <= len(content):
            index = int.from_bytes(content[position : position + 2], "little")
            if not index:  # the rest is free
                break
            length = int.from_bytes(content[position + OBJECT_HEADER : position + head], "little")
            position += head
            found[index] = content[position : position + length]
            position += -(-length // 8) * 8
        return found


def _stored(path: Path, data: h5py.Dataset, size: int) -> bytes:
    """Return the lengths and places of all texts, ``size`` bytes each."""
    n = len(data)
    if data.chunks is None:
        offset = data.id.get_offset()
        if offset is None:
            raise ValueError(f"the texts of {data.name!r} are stored in an unusual way")
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(n * size)
    each = data.chunks[0]
    if any(width != 1 for width in data.chunks[1:]):
        raise ValueError(f"the texts of {data.name!r} are stored in an unusual way")
    result = bytearray(n * size)
    for number in range(data.id.get_num_chunks()):
        offset = data.id.get_chunk_info(number).chunk_offset
        mask, content = data.id.read_direct_chunk(offset)
        content = _unpacked(data, mask, content, each * size)
        start, stop = offset[0], min(offset[0] + each, n)
        if len(content) != each * size or start >= n:
            raise ValueError(f"a chunk of {data.name!r} is damaged")
        result[start * size : stop * size] = content[: (stop - start) * size]
    return bytes(result)


def _unpacked(data: h5py.Dataset, mask: int, content: Any, size: int) -> bytes:
    """Undo the filters of a chunk; ``mask`` has the bits of those that were left out."""
    properties = data.id.get_create_plist()
    for place in reversed(range(properties.get_nfilters())):
        if mask >> place & 1:
            continue
        code, _, values, _ = properties.get_filter(place)
        if code == DEFLATE:
            content = zlib.decompressobj().decompress(content, size)
        elif code == SHUFFLE:
            content = np.frombuffer(content, np.uint8).reshape(values[0], -1).T.tobytes()
        else:
            raise ValueError(f"the texts of {data.name!r} are compressed in an unusual way")
    return content

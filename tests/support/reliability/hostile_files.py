"""Write the files of strangers: headers that lie, bombs, odd names, links, pipes, and run directories."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

GIB = 1 << 30


def npy(path: Path, header: str | bytes, data: bytes = bytes(64), length: int | None = None) -> None:
    """Write an .npy file with any header, which may claim any length."""
    text = header.encode() if isinstance(header, str) else header
    claimed = struct.pack("<I", len(text) if length is None else length)
    path.write_bytes(b"\x93NUMPY\x02\x00" + claimed + text + data)


def npy_of(path: Path, shape: str, kind: str = "<f4") -> None:
    """Write an .npy file whose header claims this shape and type."""
    npy(path, f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}")


def random_npy(path: Path, rng: random.Random) -> None:
    """Write an .npy file with a header of which any characters are others."""
    buffer = io.BytesIO()
    np.save(buffer, np.eye(8, dtype=np.float32))
    content = bytearray(buffer.getvalue())
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(128)] = rng.choice(b"0123456789()[]{},:'<>|fiOVSU \n\x00\xff")
    path.write_bytes(content)


def zeros(path: Path, member: str, size: int, head: bytes = b"") -> None:
    """Write a .zip with a member of many zeros after a head; it takes a thousandth of their size."""
    block = zlib.compressobj(9, zlib.DEFLATED, -15)
    mebibyte = bytes(1 << 20)
    packed = block.compress(mebibyte) + block.flush(zlib.Z_FULL_FLUSH)
    first = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = first.compress(head) + first.flush(zlib.Z_FULL_FLUSH)
    count, check = size >> 20, zlib.crc32(head)
    for _ in range(count):
        check = zlib.crc32(mebibyte, check)
    content = start + packed * count + zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    name, total = member.encode(), len(head) + (count << 20)
    fields = (20, 0, 8, 0, 0x21, check, len(content), total, len(name), 0)
    local = struct.pack("<4s5H3I2H", b"PK\3\4", *fields) + name
    central = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, *fields[:9], 0, 0, 0, 0, 0, 0) + name
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local) + len(content), 0)
    path.write_bytes(local + content + central + end)


def npz_of_zeros(path: Path, member: str, shape: tuple[int, ...], kind: str) -> None:
    """Write an .npz whose array is what its header says, a thousand times the size of the file."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": kind, "fortran_order": False, "shape": shape})
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    zeros(path, f"{member}.npy", size, head.getvalue())


def zip_of(path: Path, members: dict[str, bytes]) -> None:
    """Write a .zip of these members."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def picture(size: int = 8, kind: str = "PNG") -> bytes:
    """Return a small image as a file."""
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (200, 30, 90)).save(buffer, kind)
    return buffer.getvalue()


def huge_png(width: int = 30_000, height: int = 30_000) -> bytes:
    """Return a black image of many pixels; it takes some hundred kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    data = b"".join(packer.compress(row * 1000) for _ in range(height // 1000)) + packer.flush()
    head = struct.pack(">2I5B", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def huge_bmp(width: int = 30_000, height: int = 30_000) -> bytes:
    """Return the header of a large image, without its pixels."""
    info = struct.pack("<3I2H6I", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info + bytes(1000)


def photos(folder: Path, more: dict[str, Callable[[], bytes]]) -> None:
    """Write a folder of six small images, and others."""
    folder.mkdir()
    for number in range(6):
        pixels = np.full((8, 8, 3), 20 + 40 * (number % 2) + number, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    for name, content in more.items():
        Path(os.fsdecode(os.fsencode(folder) + b"/" + os.fsencode(name))).write_bytes(content())


def hdf5(path: Path, kind: str) -> None:
    """Write an .h5 file whose features are not what they seem."""
    secret = path.parent.parent / "outside/secret.h5"
    with h5py.File(path, "w") as file:
        if kind == "rows":
            file.create_dataset("features", (10**10, 8), "f4", chunks=(1024, 8))
        elif kind == "columns":
            file.create_dataset("features", (8, 10**10), "f4", chunks=(8, 1024))
        elif kind == "compressed":
            chunk = zlib.compress(bytes(1 << 23))
            how = {"chunks": (1 << 18, 8), "compression": "gzip"}
            rows = file.create_dataset("features", (GIB // 32, 8), "f4", **how)
            for start in range(0, len(rows), 1 << 18):
                rows.id.write_direct_chunk((start, 0), chunk)
        elif kind == "external link":
            file["features"] = h5py.ExternalLink(str(secret), "features")
        elif kind == "external data":
            file.create_dataset("features", (8, 8), "f4", external=[(str(secret), 0, 256)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((8, 8), "f4")
            layout[:] = h5py.VirtualSource(str(secret), "features", (8, 8))
            file.create_virtual_dataset("features", layout)
        elif kind == "loop":
            file["features"] = h5py.SoftLink("/features")
        elif kind == "group":
            file.create_group("features/features/features")
        elif kind == "text":
            file["features"] = ["one", "two"]
        elif kind == "records":
            file["features"] = np.zeros(8, [("a", "f4"), ("b", "S8")])
        elif kind == "number":
            file["features"] = 3.0
        elif kind == "many":
            for number in range(20_000):
                file[f"g{number}"] = 1


def random_text(rng: random.Random, alphabet: str, length: int) -> str:
    """Return a text that is nearly in a language of these characters."""
    return "".join(rng.choice(alphabet) for _ in range(length))


def run_directory(whole: Path, path: Path, name: str, content: bytes | str | None) -> None:
    """Copy a finished run without its manifest, and put another content into one of its files."""
    shutil.copytree(whole, path)
    (path / "manifest").unlink(missing_ok=True)
    if content is not None:
        data = content.encode() if isinstance(content, str) else content
        (path / name).write_bytes(data)


def linked(whole: Path, path: Path, name: str, target: Path) -> None:
    """Copy a finished run, and put a link to elsewhere in the place of one of its files."""
    shutil.copytree(whole, path)
    (path / name).unlink(missing_ok=True)
    (path / name).symlink_to(target)


def safetensors(length: int, header: Any = None) -> bytes:
    """Return a file of weights whose header claims a length."""
    text = json.dumps(header or {}).encode()
    return struct.pack("<Q", length or len(text)) + text


def deep(depth: int, opening: str = "[", closing: str = "]") -> str:
    """Return brackets in brackets."""
    return opening * depth + closing * depth


def pipe(path: Path) -> None:
    """Make a pipe that nobody writes to."""
    os.mkfifo(path)

"""What strangers send takes no more memory and time than its real size allows."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ebsc_core.data.images.decoding import _Room
from ebsc_core.data.images.in_memory import ImageSet
from ebsc_core.plugins.interfaces import DataContext
from ebsc_core.utils.errors import DataError
from ebsc_plugins.datasets.files import ZipFiles
from ebsc_plugins.datasets.npy import read_npy
from ebsc_plugins.datasets.npz import NpzOptions, read_npz

Read = Callable[..., ImageSet]
OneLine = Callable[[pytest.ExceptionInfo[DataError]], str]


def png(width: int, height: int, depth: int = 8, color: int = 2) -> bytes:
    """A PNG of one colour, written without holding it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    row = bytes((width * {0: 1, 2: 3, 6: 4}[color] * depth + 7) // 8 + 1)
    packer = zlib.compressobj(1)
    content = b"".join([packer.compress(row) for _ in range(height)] + [packer.flush()])
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    end = chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", content) + end


def encoded(kind: str, side: int, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, kind, **options)
    return file.getvalue()


# A file is small and its picture is large; the memory for decoding it is checked before it is decoded.
BOMBS: dict[str, Callable[[], bytes]] = {
    "beyond Pillow's limit": lambda: png(30_000, 30_000, depth=1, color=0),
    "RGB": lambda: png(9_000, 9_000),
    "alpha": lambda: png(6_000, 6_000, color=6),
    "16 bits": lambda: png(5_500, 5_500, depth=16, color=0),
    "TIFF": lambda: encoded("TIFF", 9_000, compression="tiff_deflate"),
    "WEBP": lambda: encoded("WEBP", 5_000, lossless=True),
    "JPEG 2000": lambda: encoded("JPEG2000", 4_500),
    "progressive JPEG": lambda: encoded("JPEG", 7_500, progressive=True),
}


@cache
def made(bomb: str) -> bytes:
    return BOMBS[bomb]()


@pytest.mark.parametrize("name", ["big.png", "big.jpg", "big"])
def test_a_picture_bomb_is_refused_under_any_name(
    tree: Path, name: str, read: Read, one_line: OneLine
) -> None:
    with pytest.raises(DataError, match=r"cannot read image .*big") as error:
        read(tree, {name: made("alpha")})
    one_line(error)


@pytest.mark.parametrize("bomb", BOMBS)
def test_no_picture_bomb_is_decoded(
    folder: Path, bomb: str, monkeypatch: pytest.MonkeyPatch, read: Read
) -> None:
    content = made(bomb)
    fitted: list[object] = []
    monkeypatch.setattr("ebsc_core.data.images.decoding.eight_bit", lambda *image: fitted.append(image))
    with pytest.raises(DataError, match=r"far more than a file of|exceeds limit of"):
        read(folder, {"a.png": content})
    assert not fitted


def test_a_large_photograph_is_read(folder: Path, read: Read) -> None:
    """12,000x9,000 pixels: a JPEG is decoded at an eighth of its size."""
    folder.mkdir()
    photo = Image.effect_noise((1500, 1125), 60).resize((12_000, 9_000), Image.Resampling.NEAREST)
    photo.convert("RGB").save(folder / "a.jpg", quality=60)
    assert read(folder).images.shape == (1, 3, 224, 224)


def test_a_large_file_may_need_much_memory(folder: Path, monkeypatch: pytest.MonkeyPatch, read: Read) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    monkeypatch.setattr("ebsc_core.data.images.decoding.FREE", 1000)
    folder.mkdir()
    Image.fromarray(noise).save(folder / "a.png")
    assert len(read(folder)) == 1
    Image.new("RGB", (300, 200)).save(folder / "b.png")
    with pytest.raises(DataError, match=r"b\.png.*300x200 pixels need"):
        read(folder)


def test_threads_share_one_budget_of_memory() -> None:
    room, taken, peaks = _Room(10), [0], []

    def take(needed: int) -> None:
        with room.of(needed):
            taken[0] += min(needed, 10)
            peaks.append(taken[0])
            taken[0] -= min(needed, 10)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, [3, 4, 100, 1, 5, 10] * 50))
    assert max(peaks) <= 10
    assert room.taken == 0


def test_the_header_of_a_png_is_read_without_its_pixels(
    folder: Path, monkeypatch: pytest.MonkeyPatch, read: Read
) -> None:
    """Pillow decodes a PNG that has no EXIF when it is asked for it."""
    loaded: list[object] = []
    load = Image.Image.load
    monkeypatch.setattr(Image.Image, "load", lambda image: (loaded.append(image), load(image))[1])
    from ebsc_core import read_header

    header = read_header(io.BytesIO(png(30, 20)))
    assert (header.width, header.height) == (30, 20)
    assert not loaded


def test_a_zip_bomb_is_refused(tmp_path: Path, read: Read, one_line: OneLine) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.bmp", bytes(100 * 2**20))
    with pytest.raises(DataError, match=r"a\.bmp.*unpack to 104857600, which is too much") as error:
        read(path)
    one_line(error)


def test_a_large_zip_of_nonsense_is_refused_after_a_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Read
) -> None:
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(3000):
            archive.writestr(f"{i}.png", b"x")
    opened: list[int] = []
    read_one = ZipFiles.open
    monkeypatch.setattr(
        ZipFiles, "open", lambda files, position: (opened.append(position), read_one(files, position))[1]
    )
    with pytest.raises(DataError, match=r"and 1023 more \(not an image\)"):
        read(path)
    with pytest.raises(DataError, match="no readable image among 1,024 looked at"):
        read(path, skip_bad_images=True)
    assert len(opened) == 2048


def test_many_bad_images_are_counted(tree: Path, read: Read, warned: list[str]) -> None:
    bad = {f"{i:02}.png": b"x" for i in range(50)}
    assert read(tree, {"good.png": png(4, 4)} | bad, skip_bad_images=True).ids == ["good.png"]
    assert len(warned) == 21
    assert warned[-1] == "left out 30 more unreadable images"


def written(header: bytes, body: bytes = bytes(100)) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


def head(shape: str, descr: str = "'|u1'") -> bytes:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()


HEADERS = {
    "more images than there are": head("(1000000000, 8, 8)"),
    "fewer bytes than there are": head("(1, 4, 4)"),
    "a negative length": head("(-1, 8, 8)"),
    "no pixels": head("(1000000000000000, 0, 8)"),
    "a huge integer": head("(" + "9" * 400 + ", 8, 8)"),
    "no integer": head("('a', 8, 8)"),
    "no dtype": head("(1, 10, 10)", "'nonsense'"),
    "deep nesting": b"(" * 3000 + b"\n",
    "a call": b"__import__('os').abort()\n",
    "no text": bytes(range(128, 256)),
    "nothing": b"",
}


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
def test_a_header_that_lies_is_one_line(
    tmp_path: Path, header: bytes, method: int, skip: bool, one_line: OneLine
) -> None:
    context = DataContext(Path("x"), skip_bad_images=skip, workers=0)
    body = b"" if header == HEADERS["no pixels"] else bytes(100)
    (tmp_path / "a.npy").write_bytes(written(header, body))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        archive.write(tmp_path / "a.npy", "images.npy")
    for name, reader in (("a.npz", read_npz), ("a.npy", read_npy)):
        with pytest.raises(DataError, match=name) as error:
            reader(tmp_path / name, NpzOptions(), context)
        one_line(error)


def test_an_npz_bomb_is_refused_and_a_compressed_drawing_is_not(tmp_path: Path, one_line: OneLine) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", images=np.zeros((100, 1000, 1000), np.uint8))
    with pytest.raises(DataError, match=r"would unpack from 0\.1 MiB to 95 MiB") as error:
        read_npz(tmp_path / "bomb.npz", NpzOptions(), DataContext(Path("x")))
    one_line(error)
    drawing = np.zeros((900, 300, 300), np.uint8)
    drawing[:, ::7, ::11] = np.random.default_rng(0).integers(0, 255, drawing[:, ::7, ::11].shape)
    np.savez_compressed(tmp_path / "drawing.npz", images=drawing)
    assert len(read_npz(tmp_path / "drawing.npz", NpzOptions(), DataContext(Path("x")))) == 900


def test_labels_that_lie_are_not_read(tmp_path: Path, one_line: OneLine) -> None:
    content = io.BytesIO()
    np.save(content, np.zeros((6, 4, 4), np.uint8))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", content.getvalue())
        archive.writestr("labels.npy", written(head("(1000000000000,)", "'<i8'")))
    with pytest.raises(DataError, match="labels") as error:
        read_npz(tmp_path / "a.npz", NpzOptions(), DataContext(Path("x")))
    one_line(error)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is measured by /proc")
def test_memory_stays_near_its_start(tmp_path: Path) -> None:
    """Measured in a process of its own: nothing is held besides, so that the limit is the memory's."""
    (tmp_path / "pictures").mkdir()
    for i, bomb in enumerate(("alpha", "16 bits", "WEBP")):
        (tmp_path / "pictures" / f"{i}.png").write_bytes(made(bomb))
    (tmp_path / "pictures" / "free.png").write_bytes(png(5_000, 5_000, color=6))
    code = """
import sys
from pathlib import Path
from ebsc_core.plugins.interfaces import DataContext
from ebsc_plugins.datasets.folder import FolderOptions, resolve_folder
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
images = resolve_folder(sys.argv[1]).factory(FolderOptions(), DataContext(Path("x"), skip_bad_images=True))
print(len(images), (peak() - before) // 1024)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "pictures")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    images, mib = map(int, done.stdout.split())
    assert images == 1
    assert mib < 300

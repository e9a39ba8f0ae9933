"""A listing takes what Pillow reads, and says what it leaves out."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image, features

from ebsc_core import image_formats, image_suffixes
from ebsc_core.data.images.in_memory import ImageSet
from ebsc_core.utils.errors import DataError
from ebsc_plugins.datasets.folder import FolderOptions

Read = Callable[..., ImageSet]
Tiny = Callable[..., dict[str, bytes]]
OneLine = Callable[[pytest.ExceptionInfo[DataError]], str]


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (10, 200, 30)).save(file, kind)
    return file.getvalue()


KINDS = {
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".jp2": "JPEG2000",
    ".avif": "AVIF",
    ".webp": "WEBP",
    ".tga": "TGA",
    ".pcx": "PCX",
    ".dib": "DIB",
    ".ico": "ICO",
    ".JPE": "JPEG",
}


@pytest.mark.parametrize("suffix", KINDS)
def test_all_that_pillow_reads_is_read(tree: Path, suffix: str, read: Read, warned: list[str]) -> None:
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    data = read(tree, {f"a{suffix}": encoded(KINDS[suffix])})
    assert data.ids == [f"a{suffix}"]
    assert (data.images[0, :, 5, 5].int() - data.images.new_tensor([10, 200, 30]).int()).abs().max() < 12
    assert not warned


def test_formats_that_start_other_programs_are_not_read(tree: Path, read: Read, one_line: OneLine) -> None:
    assert not {".eps", ".ps", ".h5", ".wmf", ".mpg", ".pdf"} & image_suffixes()
    with pytest.raises(DataError, match="not an image") as error:
        read(tree, {"a.png": encoded("EPS")})
    one_line(error)


def test_the_decoder_of_heif_is_used_if_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[bool] = []
    package = ModuleType("pillow_heif")
    vars(package)["register_heif_opener"] = lambda: registered.append(True)
    monkeypatch.setitem(sys.modules, "pillow_heif", package)
    assert image_formats.__wrapped__()
    assert registered


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "JPEG2000", "BMP"])
def test_files_without_a_suffix_are_known_by_their_first_bytes(
    tree: Path, kind: str, read: Read, warned: list[str]
) -> None:
    data = read(tree, {"a/0123abcd": encoded(kind), "a/LICENSE": b"Permission is hereby", "a/empty": b""})
    assert data.ids == ["a/0123abcd"]
    assert warned == [f"left out of {tree}: 2 files of other types (2 without a suffix)"]


def test_what_is_left_out_is_counted_by_its_type(
    tree: Path, read: Read, tiny: Tiny, warned: list[str]
) -> None:
    other = dict.fromkeys(("1.heic", "2.HEIC", "notes.txt", "b/x.csv", "b/y.db"), b"x")
    assert read(tree, {**tiny("a.png", "b/c.png"), **other}).ids == ["a.png", "b/c.png"]
    (line,) = warned
    assert "5 files of other types (2 .heic, 1 " in line
    assert "`pip install pillow-heif`" in line
    assert "and 1 more" in line


def test_hidden_folders_are_no_classes_and_are_said(
    tree: Path, read: Read, tiny: Tiny, warned: list[str]
) -> None:
    hidden = ("@eaDir/1.png", "b/@eaDir/2.png", ".thumbnails/3.png", "__MACOSX/b/._4.png", "c/.5.png")
    system = ("#recycle/6.png", "$RECYCLE.BIN/7.png", "lost+found/8.png")
    data = read(tree, tiny("b/1.png", "c/1.png", *hidden, *system))
    assert data.class_names == ("b", "c")
    (line,) = warned
    assert "7 hidden folders (" in line
    assert "1 hidden image" in line
    assert "@eaDir" in line or "and 3 more" in line


def test_nothing_is_said_if_nothing_is_left_out(
    tree: Path, read: Read, tiny: Tiny, warned: list[str]
) -> None:
    read(tree, {**tiny("a/1.png", "b/1.png"), ".DS_Store": b"x"})
    assert not warned


def test_a_folder_that_cannot_be_opened_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, read: Read, tiny: Tiny, warned: list[str]
) -> None:
    read(folder, tiny("a/1.png", "b/1.png", "c/1.png"))
    scandir = os.scandir

    def refuse(path: str) -> os.scandir:
        if os.fspath(path).endswith(("/b", "/c")):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        assert read(folder).ids == ["a/1.png"]
    where = folder / "b"
    assert "2 folders that cannot be opened (" in warned[0]
    assert f"({where}: Permission denied)" in warned[0] or f"({folder / 'c'}: Permission denied)" in warned[0]


def test_without_images_it_is_said_what_there_is(tree: Path, read: Read, one_line: OneLine) -> None:
    with pytest.raises(DataError, match=r"2 files of other types \(2 \.heic") as error:
        read(tree, {"1.heic": b"x", "2.heic": b"x"})
    one_line(error)


@pytest.mark.parametrize(
    ("names", "dates"),
    [
        (("2019/1.png", "2020/1.png"), True),
        (("2019-07/1.png", "2019-08/1.png"), True),
        (("20190731/1.png", "20190801/1.png"), True),
        (("0001/1.png", "0002/1.png"), False),
        (("2019/1.png", "cats/1.png"), False),
    ],
)
def test_folders_named_by_dates_are_said_to_become_classes(
    tree: Path, names: tuple[str, ...], dates: bool, read: Read, tiny: Tiny, warned: list[str]
) -> None:
    data = read(tree, tiny(*names))
    assert data.n_classes == 2
    assert [("look like dates" in line and "`data.labels=none`" in line) for line in warned] == [True] * dates
    assert data.labels_from.startswith(f"the folders {data.class_names[0]}, {data.class_names[1]};")
    assert data.take(data.labels.argsort()).labels_from == data.labels_from
    warned.clear()
    assert read(tree, None, FolderOptions(labels="none")).labels_from == ""
    assert not warned


@pytest.mark.parametrize(
    ("kind", "suffix"), [("TIFF", ".tif"), ("GIF", ".gif"), ("WEBP", ".webp"), ("PNG", ".png")]
)
@pytest.mark.parametrize("stream", [True, False])
def test_of_several_pages_the_first_is_taken_and_said(
    folder: Path, kind: str, suffix: str, stream: bool, read: Read, tiny: Tiny, warned: list[str]
) -> None:
    pages = [Image.new("RGB", (4, 4), (60 * page, 0, 0)) for page in (1, 2, 3)]
    file = io.BytesIO()
    lossless = {"lossless": True} if kind == "WEBP" else {}
    pages[0].save(file, kind, save_all=True, append_images=pages[1:], **lossless)
    data = read(
        folder, {**tiny("a.png"), f"b{suffix}": file.getvalue()}, FolderOptions(stream=stream), workers=0
    )
    first = next(iter(data.batches([torch.tensor([1])], torch.device("cpu"))))
    assert first[0, 0, 0, 0] == 60
    assert len(warned) == 1
    assert f"1 of 2 files looked at in {folder} holds several pages or frames; the first" in warned[0]


def test_a_damaged_second_page_does_not_matter(folder: Path, read: Read, warned: list[str]) -> None:
    file = io.BytesIO()
    pages = [Image.new("L", (4, 4), page) for page in (7, 8)]
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    data = read(folder, {"a.tif": file.getvalue()[:-40]})
    assert (data.images == 7).all()

"""Folders and zips of images: which files count, their names and classes, and samples of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ebsc_core.data.images.in_memory import ImageSet
from ebsc_core.utils.errors import DataError
from ebsc_plugins.datasets.folder import FolderOptions, resolve_folder, resolve_zip
from ebsc_plugins.datasets.npz import resolve_npz

Read = Callable[..., ImageSet]
Tiny = Callable[..., dict[str, bytes]]
OneLine = Callable[[pytest.ExceptionInfo[DataError]], str]


def test_paths_are_told_apart_by_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "some").mkdir()
    assert resolve_folder("~/some") is not None
    assert resolve_folder(str(tmp_path / "missing")) is None
    assert resolve_zip("missing.ZIP") is not None
    for suffix in (".zip", ".npz"):
        (tmp_path / f"folder{suffix}").mkdir()
        resolvers = (resolve_folder, resolve_zip, resolve_npz)
        assert [r(str(tmp_path / f"folder{suffix}")) is not None for r in resolvers] == [True, False, False]
    for name in ("digits", "resnet18", "a.tar"):
        assert resolve_folder(str(tmp_path / name)) is None
        assert resolve_zip(name) is None
        assert resolve_npz(name) is None


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["b/1.png", "a/2.png", "a/1.png", "c/1.png"], [0, 0, 1, 2]),
        (["top/b/1.png", "top/a/1.png"], [0, 1]),
        (["a/deep/1.png", "a/2.png", "b/deep/3.png"], [0, 0, 1]),
        (["1.png", "2.png"], None),
        (["only/1.png", "only/2.png"], None),
        (["a/1.png", "b/1.png", "stray.png"], None),
        (["top/a/1.png", "top/b/1.png", "top/stray.png"], None),
    ],
)
def test_the_first_branching_folders_are_classes(
    tree: Path, names: list[str], labels: list[int] | None, read: Read, tiny: Tiny
) -> None:
    data = read(tree, tiny(*names))
    assert data.ids == sorted(names)
    assert (None if data.labels is None else data.labels.tolist()) == labels


def test_folders_can_be_no_classes(tree: Path, read: Read, tiny: Tiny) -> None:
    assert read(tree, tiny("a/1.png", "b/1.png"), FolderOptions(labels="none")).labels is None


def test_hidden_files_and_other_types_are_ignored(tree: Path, read: Read, tiny: Tiny) -> None:
    files = tiny("a/1.png", "b/1.png", ".hidden.png", ".git/2.png", "__MACOSX/a/1.png", "a/._1.png")
    data = read(tree, {**files, "readme.txt": b"hello", "a/Thumbs.db": b"x", "labels.csv": b"1"})
    assert data.ids == ["a/1.png", "b/1.png"]
    assert data.labels is not None


def test_hidden_folders_above_do_not_hide_the_images(tmp_path: Path, read: Read, tiny: Tiny) -> None:
    (tmp_path / ".cache").mkdir()
    assert len(read(tmp_path / ".cache" / "pictures", tiny("a.png"))) == 1


ODD_NAMES = ["a b.png", "it's.png", 'say "x".png', "new\nline.png", "[red].png", "Ж漢é.png", "-x,;=.png"]


def test_odd_names_are_kept(tree: Path, read: Read, tiny: Tiny) -> None:
    assert read(tree, tiny(*ODD_NAMES)).ids == sorted(ODD_NAMES)


def test_names_that_are_not_utf8_are_kept(folder: Path, read: Read, tiny: Tiny) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    assert read(folder, tiny(name)).ids == [name]


@pytest.mark.parametrize("name", ["new\nline.png", os.fsdecode(b"caf\xe9.png")])
def test_an_oddly_named_corrupt_image_is_named_on_one_printable_line(
    folder: Path, name: str, read: Read, tiny: Tiny, warned: list[str], one_line: OneLine
) -> None:
    with pytest.raises(DataError) as error:
        read(folder, {name: b"nonsense"})
    one_line(error).encode()
    read(folder, tiny("good.png"), skip_bad_images=True)
    assert warned[0].isprintable()


def test_folders_can_be_reached_by_links(folder: Path, tmp_path: Path, read: Read, tiny: Tiny) -> None:
    read(tmp_path / "elsewhere", tiny("1.png"))
    folder.mkdir()
    (folder / "a").symlink_to(tmp_path / "elsewhere")
    assert read(folder, tiny("b/1.png")).ids == ["a/1.png", "b/1.png"]


def test_a_link_back_to_the_folder_repeats_nothing(folder: Path, read: Read, tiny: Tiny) -> None:
    folder.mkdir()
    (folder / "loop").symlink_to(folder)
    assert read(folder, tiny("a/1.png", "b/1.png")).ids == ["a/1.png", "b/1.png"]


def test_links_between_folders_repeat_nothing_endlessly(
    tmp_path: Path, read: Read, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each folder is seen where it is and through a link, but not through a link within that."""
    root = tmp_path / "root"
    for name, link, target in (("a", "l", "b"), ("b", "m", "c"), ("c", "n", "a")):
        (root / name).mkdir(parents=True)
        (root / name / link).symlink_to(root / target)
    files = tiny("a/a.png", "b/b.png", "c/c.png")
    expected = {
        *("a/a.png", "a/l/b.png", "a/l/m/c.png", "b/b.png", "b/m/c.png", "b/m/n/a.png"),
        *("c/c.png", "c/n/a.png", "c/n/l/b.png"),
    }
    assert set(read(root, files).ids) == expected
    monkeypatch.chdir(root)
    assert set(read(Path(), {}).ids) == expected


def test_a_link_to_nothing_is_an_unreadable_image(folder: Path, read: Read, tiny: Tiny) -> None:
    folder.mkdir()
    (folder / "gone.png").symlink_to(folder / "nowhere")
    with pytest.raises(DataError, match=r"gone\.png"):
        read(folder, tiny("a.png"))


@pytest.mark.parametrize("files", [{}, {"readme.txt": b"hello"}, {".hidden.png": b"x"}])
def test_without_images_there_is_an_error(
    tree: Path, files: dict[str, bytes], read: Read, one_line: OneLine
) -> None:
    with pytest.raises(DataError, match="holds no images") as error:
        read(tree, files)
    assert str(tree) in one_line(error)


def test_limit_takes_a_seeded_sample(tree: Path, read: Read, tiny: Tiny) -> None:
    files = tiny(*(f"{folder}/{i:02}.png" for folder in "ab" for i in range(20)))
    whole = read(tree, files)
    part = read(tree, files, limit=7, seed=3)
    assert len(part) == 7
    assert part.ids == sorted(part.ids)
    assert part.labels is not None
    assert part.labels.tolist() == ["ab".index(name[0]) for name in part.ids]
    for name, image in zip(part.ids, part.images, strict=True):
        assert torch.equal(image, whole.images[whole.ids.index(name)])
    assert read(tree, files, limit=7, seed=3).ids == part.ids
    assert read(tree, files, limit=7, seed=4).ids != part.ids
    assert len(read(tree, files, limit=400)) == 40


def test_a_sample_keeps_the_classes_of_the_whole(tree: Path, read: Read, tiny: Tiny) -> None:
    files = tiny("a/1.png", "b/1.png")
    ones = [read(tree, files, limit=1, seed=seed) for seed in range(8)]
    found = {(one.ids[0], None if one.labels is None else int(one.labels[0])) for one in ones}
    assert found == {("a/1.png", 0), ("b/1.png", 1)}


def test_limit_opens_only_the_sample(
    folder: Path, monkeypatch: pytest.MonkeyPatch, read: Read, tiny: Tiny
) -> None:
    opened, lock, real = set(), threading.Lock(), Path.open

    def open_file(path: Path, *arguments: Any) -> Any:
        with lock:
            opened.add(path.name)
        return real(path, *arguments)

    files = tiny(*(f"{i:02}.png" for i in range(40)))
    read(folder, files)
    monkeypatch.setattr(Path, "open", open_file)
    assert set(read(folder, limit=5).ids) == opened


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_no_image(folder: Path, read: Read, tiny: Tiny) -> None:
    read(folder, tiny("a.png", "b.png"))
    os.mkfifo(folder / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png.*not a regular file"):
        read(folder)

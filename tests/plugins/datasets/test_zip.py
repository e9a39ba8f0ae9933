"""What only zips of images can have: repeated, damaged and encrypted members."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ebsc_core.data.images import ImageSet
from ebsc_core.errors import DataError

Read = Callable[..., ImageSet]
Tiny = Callable[..., dict[str, bytes]]
OneLine = Callable[[pytest.ExceptionInfo[DataError]], str]


def test_directory_entries_and_repeated_members_of_a_zip_are_no_images(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("strange.png/", b"")
        archive.writestr("strange.png/1.png", encoded(picture()))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("strange.png/1.png", encoded(picture(seed=1)))
    assert build(resolve_zip(str(path)), FolderOptions(), context()).ids == ["strange.png/1.png"]


def test_a_zip_that_cannot_be_opened_is_refused(
    tmp_path: Path, read: Read, tiny: Tiny, one_line: OneLine
) -> None:
    missing, text, cut = (tmp_path / name for name in ("missing.zip", "text.zip", "cut.zip"))
    text.write_text("hello")
    Tree(cut, zipped=True).read(tiny("a.png"))
    cut.write_bytes(cut.read_bytes()[:-10])
    for path in (missing, text, cut):
        with pytest.raises(DataError) as error:
            build(resolve_zip(str(path)), FolderOptions(), context())
        assert str(path) in one_line(error)


def test_damaged_and_encrypted_members_of_a_zip_are_named(
    tmp_path: Path, read: Read, tiny: Tiny, one_line: OneLine
) -> None:
    for damage in ("flip", "encrypt"):
        tree = Tree(tmp_path / f"{damage}.zip", zipped=True)
        read(tree, tiny("a.png"))
        if damage == "encrypt":
            pretend_encrypted(tree)
        else:
            content = bytearray(tree.read_bytes())
            content[60] ^= 255
            tree.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.png") as error:
            build(resolve_zip(str(tree)), FolderOptions(), context())
        one_line(error)


def test_a_sample_of_the_cifar10_zip(data_dir: Path) -> None:
    data = build(resolve_zip(str(data_dir / "cifar10-test.zip")), FolderOptions(), context(limit=50))
    assert data.images.shape == (50, 3, 32, 32)
    assert data.labels is not None
    assert 5 <= len(np.unique(data.labels)) <= 10
    assert set(data.labels.tolist()) <= set(range(10))
    assert len({name.split("/")[0] for name in data.ids}) == data.n_classes

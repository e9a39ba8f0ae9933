"""What only zips of images can have: repeated, damaged and encrypted members."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ebsc_core.data.images.in_memory import ImageSet
from ebsc_core.utils.errors import DataError

Read = Callable[..., ImageSet]
Tiny = Callable[..., dict[str, bytes]]
OneLine = Callable[[pytest.ExceptionInfo[DataError]], str]


def test_directory_entries_and_repeated_members_of_a_zip_are_no_images(
    tmp_path: Path, read: Read, tiny: Tiny
) -> None:
    path = tmp_path / "a.zip"
    first, second = tiny("first.png", "second.png").values()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("strange.png/", b"")
        archive.writestr("strange.png/1.png", first)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("strange.png/1.png", second)
    assert read(path).ids == ["strange.png/1.png"]


def test_a_zip_that_cannot_be_opened_is_refused(
    tmp_path: Path, read: Read, tiny: Tiny, one_line: OneLine
) -> None:
    missing, text, cut = (tmp_path / name for name in ("missing.zip", "text.zip", "cut.zip"))
    text.write_text("hello")
    read(cut, tiny("a.png"))
    cut.write_bytes(cut.read_bytes()[:-10])
    for path in (missing, text, cut):
        with pytest.raises(DataError) as error:
            read(path)
        assert str(path) in one_line(error)


def test_damaged_and_encrypted_members_of_a_zip_are_named(
    tmp_path: Path, read: Read, tiny: Tiny, one_line: OneLine, pretend_encrypted: Callable[[Path], None]
) -> None:
    for damage in ("flip", "encrypt"):
        path = tmp_path / f"{damage}.zip"
        read(path, tiny("a.png"))
        if damage == "encrypt":
            pretend_encrypted(path)
        else:
            content = bytearray(path.read_bytes())
            content[60] ^= 255
            path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.png") as error:
            read(path)
        one_line(error)


def test_a_sample_of_the_cifar10_zip(data_dir: Path, read: Read) -> None:
    data = read(data_dir / "cifar10-test.zip", limit=50)
    assert data.images.shape == (50, 3, 32, 32)
    assert data.labels is not None
    assert 5 <= len(np.unique(data.labels)) <= 10
    assert set(data.labels.tolist()) <= set(range(10))
    assert len({name.split("/")[0] for name in data.ids}) == data.n_classes

"""A path that is no data set is described, instead of being an unknown name."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebsc_core.plugins.kinds import Kind
from ebsc_core.plugins.registry import Registry, UnknownComponentError


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("x.tar", "is an archive that no data set reads; unpack it"),
        ("x.tar.gz", "is an archive that no data set reads; unpack it"),
        ("one.png", "is a single image; give the folder of all images"),
        ("one.JPG", "is a single image"),
        ("one.webp", "is a single image"),
        ("f.h5", "`ebsc cluster` takes it if they are features"),
        ("f.csv", "`ebsc cluster` takes it if they are features"),
        ("notes.txt", "is a file that no data set reads; give one of: folder, npy, npz, zip"),
        ("nosuffix", "is a file that no data set reads"),
    ],
)
def test_files_are_described(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UnknownComponentError) as error:
        Registry().find(Kind.DATA, str(tmp_path / name))
    assert says in str(error.value)
    assert str(tmp_path / name) in str(error.value)
    assert "unknown" not in str(error.value)


def test_a_path_to_nothing_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UnknownComponentError, match=r"nowhere does not exist"):
        Registry().find(Kind.DATA, str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("given", "meant"), [("photo", "photos"), ("fotos/", "photos"), ("sub/x", "sub/x.npz")]
)
def test_a_path_that_is_nearly_one_is_suggested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, meant: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/x.npz").touch()
    with pytest.raises(UnknownComponentError, match=rf"did you mean {meant}\?"):
        Registry().find(Kind.DATA, given)


@pytest.mark.parametrize("name", ["digit", "a\0b", "x" * 5000, "~nobody-of-this-name"])
def test_a_name_stays_an_unknown_name(name: str) -> None:
    with pytest.raises(UnknownComponentError, match="there is no file, folder or data set"):
        Registry().find(Kind.DATA, name)


def test_a_file_of_the_name_of_a_backbone_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"x")
    with pytest.raises(UnknownComponentError, match="unknown backbone"):
        Registry().find(Kind.BACKBONE, str(tmp_path / "x.tar"))

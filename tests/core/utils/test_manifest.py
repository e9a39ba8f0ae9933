"""Folders whose files are guarded: what is read is what was written, or it is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ebsc_core.utils.errors import DataError
from ebsc_core.utils.manifest import MANIFEST, GuardedFolder, write_manifest

CONTENT = {
    "a.bin": bytes(range(256)) * 4,
    "text.json": b'{"a": 1}\n',
    "deep/empty": b"",
    "deep/w": b"weights",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    for name, content in CONTENT.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    write_manifest(path)
    return path


def refused(path: Path, name: str) -> str:
    """What is said of a file that is not given out."""
    with pytest.raises(DataError) as raised:
        GuardedFolder(path, "restore it").file(name)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_was_written_is_read(folder: Path) -> None:
    files = GuardedFolder(folder)
    assert {name: files.file(name).read_bytes() for name in CONTENT} == CONTENT
    assert files.unchecked == ""
    assert sorted(path.name for path in folder.iterdir()) == ["a.bin", "deep", MANIFEST, "text.json"]


def test_other_programs_can_check_it(folder: Path) -> None:
    subprocess.run(
        ["sha256sum", "--strict", "--check", MANIFEST], cwd=folder, check=True, capture_output=True
    )


def flip(content: bytes, generator: np.random.Generator) -> bytes:
    data = bytearray(content)
    data[generator.integers(len(data))] ^= 1 << generator.integers(8)
    return bytes(data)


def cut(content: bytes, generator: np.random.Generator) -> bytes:
    return content[: generator.integers(len(content))]


def grow(content: bytes, generator: np.random.Generator) -> bytes:
    return content + generator.bytes(1)


def lose_a_block(content: bytes, generator: np.random.Generator) -> bytes:
    at = int(generator.integers(len(content)))
    return content[:at] + bytes(len(content[at : at + 16])) + content[at + 16 :]


def swap_lines(content: bytes, generator: np.random.Generator) -> bytes:
    return b"".join(generator.permutation(content.splitlines(keepends=True)))


@pytest.mark.parametrize("damage", [flip, cut, grow, lose_a_block, swap_lines])
@pytest.mark.parametrize("name", ["a.bin", "text.json", "deep/w", MANIFEST])
def test_no_damage_gives_other_content(folder: Path, name: str, damage: Callable[..., bytes]) -> None:
    generator = np.random.default_rng(0)
    whole = (folder / name).read_bytes()
    refusals = 0
    for _ in range(60):
        (folder / name).write_bytes(damaged := damage(whole, generator))
        files = GuardedFolder(folder)
        for other, content in CONTENT.items():
            try:
                assert files.file(other).read_bytes() == content
            except DataError:
                assert damaged != whole
                refusals += 1
    assert refusals or (damage is swap_lines)


def test_what_is_wrong_is_named_with_the_way_out(folder: Path) -> None:
    (folder / "a.bin").write_bytes(b"other")
    (folder / "text.json").unlink()
    (folder / "new").write_bytes(b"new")
    assert refused(folder, "a.bin") == (
        f"{folder}/a.bin is not the file that was written (its checksum differs); restore it"
    )
    assert refused(folder, "text.json") == f"{folder}/text.json is missing; restore it"
    assert refused(folder, "new") == f"{folder}/new is not in {folder}/manifest; restore it"
    assert GuardedFolder(folder).holds("text.json")
    assert not GuardedFolder(folder).holds("other")


def test_without_a_manifest_it_is_said_and_read(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    (folder / "a.bin").write_bytes(b"other")
    files = GuardedFolder(folder)
    assert files.file("a.bin").read_bytes() == b"other"
    assert "no manifest (it was removed, or an earlier version wrote none)" in files.unchecked
    assert not files.holds("b.bin")
    assert files.unchecked.endswith("so its files are read unchecked")
    cured = GuardedFolder(folder, "restore it").unchecked
    assert cured.endswith("read unchecked; to have them checked, restore it")


def test_only_a_file_that_is_there_can_be_used_as_it_is(folder: Path) -> None:
    (folder / "a.bin").write_bytes(b"other")
    (folder / "text.json").unlink()
    files = GuardedFolder(folder, "restore it", as_it_is="to use it: rm manifest")
    with pytest.raises(DataError, match=r"differs\); restore it \(to use it: rm manifest\)$"):
        files.file("a.bin")
    with pytest.raises(DataError, match=r"is missing; restore it$"):
        files.file("text.json")


@pytest.mark.parametrize("with_manifest", [True, False])
def test_nothing_is_read_through_a_link(folder: Path, tmp_path: Path, with_manifest: bool) -> None:
    if not with_manifest:
        (folder / MANIFEST).unlink()
    shutil.copytree(folder, tmp_path / "copy")
    (folder / "a.bin").unlink()
    (folder / "a.bin").symlink_to(tmp_path / "copy/a.bin")
    shutil.rmtree(folder / "deep")
    (folder / "deep").symlink_to(tmp_path / "copy/deep")
    assert "a.bin is a link" in refused(folder, "a.bin")
    assert "deep is a link" in refused(folder, "deep/w")


def test_neither_is_the_manifest(folder: Path, tmp_path: Path) -> None:
    (folder / MANIFEST).rename(tmp_path / "elsewhere")
    (folder / MANIFEST).symlink_to(tmp_path / "elsewhere")
    assert "manifest is a link" in refused(folder, "a.bin")


def test_what_is_no_file_is_not_waited_for(folder: Path) -> None:
    (folder / "a.bin").unlink()
    os.mkfifo(folder / "a.bin")
    assert "is no file" in refused(folder, "a.bin")


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret", "deep/../../secret", "a\x1b[31m"])
def test_a_manifest_names_nothing_outside(folder: Path, name: str) -> None:
    with (folder / MANIFEST).open("a") as file:
        file.write(f"{'0' * 64}  {name}\n")
    assert "manifest is damaged" in refused(folder, "a.bin")


def test_a_huge_manifest_is_not_read_to_its_end(folder: Path) -> None:
    with (folder / MANIFEST).open("ab") as file:
        file.truncate(1 << 40)
    assert "manifest is damaged" in refused(folder, "a.bin")

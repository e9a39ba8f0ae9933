"""Feature files: what is written is read back, and nothing else is taken for it."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from ebsc_core.data.features import store
from ebsc_core.data.features.rows import StoredRows
from ebsc_core.data.features.store import (
    CHUNK_BYTES,
    FORMAT,
    FeatureTable,
    FeatureWriter,
    add_identity,
    check_features,
)
from ebsc_core.utils.errors import DataError
from ebsc_core.utils.hashing import digest

ROWS = 30
MADE_FROM = {"data": "abc", "options": {"epochs": 3}}
KEY = digest(MADE_FROM)


def table() -> FeatureTable:
    return FeatureTable(torch.randn(ROWS, 8), torch.randn(ROWS, 4))


def write(path: Path, tables: Iterable[FeatureTable]) -> None:
    with FeatureWriter(path, KEY, MADE_FROM) as writer:
        for block in tables:
            writer.append(block)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "features.h5"
    write(path, [table()])
    return path


@pytest.mark.parametrize("embeddings", [True, False])
@pytest.mark.parametrize("sizes", [[30], [7, 7, 7, 7, 2], [1, 29]])
def test_what_is_written_in_blocks_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embeddings: bool, sizes: list[int]
) -> None:
    monkeypatch.setattr(store, "CHUNK_BYTES", 100)  # more than one chunk
    whole = table()
    assert whole.embeddings is not None
    parts = zip(whole.features.split(sizes), whole.embeddings.split(sizes), strict=True)
    write(tmp_path / "a.h5", (FeatureTable(f, e if embeddings else None) for f, e in parts))
    check_features(tmp_path / "a.h5", KEY, ROWS)
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["features"], whole.features)
        assert ("embeddings" in file) == embeddings
        if embeddings:
            np.testing.assert_array_equal(file["embeddings"], whole.embeddings)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]


def test_a_file_as_earlier_versions_wrote_it_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["format"], file.attrs["key"] = "ebsc-features-1", KEY
        file["features"] = table().features.numpy()
    check_features(tmp_path / "a.h5", KEY, ROWS)


def refused(path: Path, key: str = KEY, rows: int = ROWS) -> str:
    with pytest.raises(DataError) as error:
        check_features(path, key, rows)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_another_key_or_length_is_refused(path: Path) -> None:
    assert "other data or options" in refused(path, key="0" * 24)
    assert str(ROWS + 1) in refused(path, rows=ROWS + 1)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path)


@pytest.mark.parametrize("error", [ValueError(), OSError("")])
def test_an_error_without_text_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    rows = StoredRows(path, "features")
    monkeypatch.setattr(h5py.Dataset, "__getitem__", raising(error))
    assert type(error).__name__ in refused(path)
    with pytest.raises(DataError, match=type(error).__name__):
        rows.take(np.array([0]))


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOMEM, "Cannot allocate memory"), RuntimeError("DefaultCPUAllocator: not enough memory")],
)
def test_lack_of_memory_is_no_damage(path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    rows = StoredRows(path, "features")
    monkeypatch.setattr(h5py.Dataset, "__getitem__", raising(error))
    for read in (lambda: check_features(path, KEY, ROWS), lambda: rows.take(np.array([0]))):
        with pytest.raises(type(error)) as raised:
            read()
        assert raised.value is error


def raising(error: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_files_that_are_no_feature_files_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.h5"
    text.write_text("hello " * 1000)
    refused(text)
    refused(tmp_path / "missing.h5")
    refused(tmp_path)
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["features"] = np.zeros((ROWS, 8), dtype=np.float32)
    assert "not a feature file" in refused(other)


@pytest.mark.parametrize("name", ["features", "embeddings"])
@pytest.mark.parametrize(
    "value",
    [
        np.full((ROWS, 8), np.nan, dtype=np.float32),
        np.full((ROWS, 8), np.inf, dtype=np.float32),
        np.zeros((ROWS - 1, 8), dtype=np.float32),
        np.zeros(ROWS, dtype=np.float32),
        np.float32(1),
        np.array([b"text"] * ROWS),
    ],
    ids=["nan", "infinite", "short", "flat", "scalar", "text"],
)
def test_unusable_rows_are_refused(path: Path, name: str, value: np.ndarray) -> None:
    with h5py.File(path, "a") as file:
        del file[name]
        file[name] = value
    refused(path)


def test_a_file_without_features_is_refused(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["features"]
    refused(path)


@pytest.mark.parametrize("before", [b"", b"earlier content"])
@pytest.mark.parametrize("failing", [True, False], ids=["midway", "at the end"])
def test_failed_writing_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bytes, failing: bool
) -> None:
    path = tmp_path / "features.h5"
    if before:
        path.write_bytes(before)

    def fail(*args: object) -> None:
        raise OSError("disk full")

    def tables() -> Iterator[FeatureTable]:
        yield table()
        if failing:
            fail()

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write(path, tables())
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == ([before] if before else [])


def test_a_file_says_what_it_was_made_from(path: Path) -> None:
    with h5py.File(path) as file:
        assert file.attrs["format"] == FORMAT
        assert file.attrs["key"] == KEY
        assert '"epochs": 3' in file.attrs["made_from"]


ODD_NAMES = [
    "plain.png",
    "Größe/Ж 漢字.png",
    "a b'\"\t\n.png",
    "",
    "x" * 300,
    b"caf\xe9.png".decode("utf-8", "surrogateescape"),
]


@pytest.mark.parametrize("labels", [None, np.array([0, 5, -1, 2**40, 3, 3])])
def test_names_and_labels_are_added(tmp_path: Path, labels: np.ndarray | None) -> None:
    path = tmp_path / "features.h5"
    write(path, [FeatureTable(torch.ones(6, 2), None)])
    add_identity(path, ODD_NAMES, labels)
    with h5py.File(path) as file:
        assert [bytes(name).decode("utf-8", "surrogateescape") for name in file["ids"][:]] == ODD_NAMES
        assert ("labels" in file) == (labels is not None)
        if labels is not None:
            np.testing.assert_array_equal(file["labels"][:], labels)
    check_features(path, KEY, 6)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Of six megabytes."""
    path = tmp_path / "disk"
    path.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(mounting, capture_output=True).returncode:
        pytest.skip("mounting a small disk takes root")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


WRITES = """
import sys, torch
from pathlib import Path
from ebsc_core.data.features.store import FeatureTable, FeatureWriter, add_identity
path = Path(sys.argv[1])
try:
    with FeatureWriter(path, "key", {}) as writer:
        for _ in range(int(sys.argv[2])):
            writer.append(FeatureTable(torch.randn(500, 300), torch.randn(500, 128)))
    add_identity(path, (f"{i}" * 100 for i in range(int(sys.argv[3]))), None)
except OSError as error:
    print(error.strerror)
"""


@pytest.mark.parametrize(("blocks", "names"), [(20, 0), (1, 60_000)])
def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(
    small_disk: Path, blocks: int, names: int
) -> None:
    words = [sys.executable, "-c", WRITES, str(small_disk / "a.h5"), str(blocks), str(names)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "No space left on device\n", "")
    assert [path.name for path in small_disk.iterdir()] == (["a.h5"] if names else [])


def test_a_file_takes_no_more_room_than_it_needs(path: Path) -> None:
    before = path.stat().st_size
    add_identity(path, [str(i) for i in range(ROWS)], np.arange(ROWS))
    assert before < path.stat().st_size < 100_000 + CHUNK_BYTES * 2

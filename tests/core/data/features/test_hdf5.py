"""HDF5 files are written and read by Python's file layer: every error of the disk is an OSError."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from ebsc_core.data.features.hdf5 import opened
from ebsc_core.data.features.store import FeatureTable, FeatureWriter, add_identity, check_features
from ebsc_core.utils.errors import DataError

fcntl = pytest.importorskip("fcntl")

ROWS, NAMES = 3000, [f"image {i}" for i in range(6000)]
KEY = "key"


def write(path: Path) -> None:
    with FeatureWriter(path, KEY, {}) as writer:
        for _ in range(2):
            writer.append(FeatureTable(torch.ones(ROWS, 100), torch.ones(ROWS, 30)))


def fail_from(monkeypatch: pytest.MonkeyPatch, first: int, number: int) -> Callable[[], int]:
    """Let every write from this one on fail, the first one midway; return how many were asked for."""
    real, calls = os.write, 0

    def failing(descriptor: int, data: memoryview) -> int:
        nonlocal calls
        calls += 1
        if calls == first and len(data) > 1:  # a full disk takes a part first
            return real(descriptor, data[: len(data) // 2])
        if calls > first:
            raise OSError(number, os.strerror(number))
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", failing)
    return lambda: calls


def count_writes(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> int:
    with monkeypatch.context() as patched:
        count = fail_from(patched, 1 << 30, 0)
        act()
        return count()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG])
def test_an_error_at_any_write_is_that_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    total = count_writes(monkeypatch, lambda: write(tmp_path / "whole.h5"))
    assert total > 6
    (tmp_path / "whole.h5").unlink()
    for first in range(total):
        with monkeypatch.context() as patched:
            fail_from(patched, first, number)
            with pytest.raises(OSError, match=r"\w") as raised:
                write(tmp_path / "a.h5")
        assert raised.value.errno == number
        assert not list(tmp_path.iterdir())


def test_names_that_cannot_be_added_are_an_error_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.h5")
    whole = (tmp_path / "a.h5").read_bytes()
    total = count_writes(monkeypatch, lambda: add_identity(tmp_path / "a.h5", NAMES, None))
    for first in range(total):
        (tmp_path / "a.h5").write_bytes(whole)
        with monkeypatch.context() as patched:
            fail_from(patched, first, errno.EDQUOT)
            with pytest.raises(OSError, match="quota"):
                add_identity(tmp_path / "a.h5", NAMES, None)


def test_writing_stops_at_the_block_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left to compute would be computed in vain."""
    fail_from(monkeypatch, 3, errno.ENOSPC)
    blocks = iter([FeatureTable(torch.ones(ROWS, 100), None)] * 100)

    def write_all() -> None:
        with FeatureWriter(tmp_path / "a.h5", KEY, {}) as writer:
            for block in blocks:
                writer.append(block)

    with pytest.raises(OSError, match="No space") as raised:
        write_all()
    assert raised.value.filename == str(tmp_path / "a.h5")
    assert len(list(blocks)) > 90


def test_what_is_read_is_what_hdf5_reads_itself(tmp_path: Path) -> None:
    rows = torch.randn(ROWS, 100)
    with FeatureWriter(tmp_path / "a.h5", KEY, {}, NAMES[:ROWS], np.arange(ROWS)) as writer:
        for block in rows.split(700):
            writer.append(FeatureTable(block, None))
    with h5py.File(tmp_path / "a.h5", "r") as theirs, opened(tmp_path / "a.h5") as ours:
        assert set(theirs) == set(ours) == {"features", "ids", "labels"}
        for name in theirs:
            np.testing.assert_array_equal(theirs[name][()], ours[name][()])
        np.testing.assert_array_equal(theirs["features"], rows)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EINTR, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_damages_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    write(tmp_path / "a.h5")
    check_features(tmp_path / "a.h5", KEY, 2 * ROWS)


def test_a_file_that_another_program_writes_is_not_read(tmp_path: Path) -> None:
    write(tmp_path / "a.h5")
    with (tmp_path / "a.h5").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="being written by another program"), opened(tmp_path / "a.h5"):
            pass
    with h5py.File(tmp_path / "a.h5", "r"):  # another reader
        check_features(tmp_path / "a.h5", KEY, 2 * ROWS)


@pytest.mark.parametrize("command", ["cluster", "predict", "features", "run"])
def test_every_command_says_so_in_one_line(
    ebsc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    images = ("--backbone", "identity")
    quick = ("--coefficients", "knn", "--no-report", "-q")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 5)))
    run = ("run", *images, "--limit", "60", "--epochs", "0", *quick)
    words: dict[str, tuple[str, ...]] = {
        "cluster": ("cluster", "x.npy", "--n-clusters", "2", *quick, "--out", "new"),
        "predict": ("predict", "run", "digits", "-o", "new.csv", "--features", "new.h5", "-q"),
        "features": ("features", "extract", "digits", *images, "-o", "new.h5"),
        "run": (*run, "--out", "new"),
    }
    if command == "predict":
        assert ebsc(*run, "--out", "run").code == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for first in (0, 4):
        with monkeypatch.context() as patched:
            fail_from(patched, first, errno.EDQUOT)
            done = ebsc(*words[command])
        assert done.code == 2
        what = "new.h5" if command in ("predict", "features") else "new"
        assert done.err.startswith(f"ebsc: error: cannot write {what}: Disk quota exceeded"), done.err
        assert done.err.count("\n") == 1
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}.keys() == before.keys()


def test_a_run_says_what_a_lock_could_not_do(ebsc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 5)))
    done = ebsc("cluster", "x.npy", "--n-clusters", "2", "--coefficients", "knn", "--out", "run", "-q")
    assert done.code == 0, done.err
    assert "the file system of run has no locks; start no second command on this run" in done.err

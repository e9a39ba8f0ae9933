"""Texts of variable length: what the HDF5 library reads, and damage that it does not survive."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ebsc_core.data.features.hdf5_texts import read_texts

TEXT = h5py.string_dtype()
WORDS = [f"{i} ü" * (i % 7) for i in range(3000)] + ["long " * 30_000, "", "last"]

KINDS: dict[str, dict[str, Any]] = {
    "in one piece": {},
    "in chunks": {"chunks": (100,)},
    "compressed": {"chunks": (1000,), "compression": "gzip", "shuffle": True},
    "growing": {"maxshape": (None,)},
    "a column": {"shape": (len(WORDS), 1), "chunks": (64, 1)},
}


@pytest.mark.parametrize("file", [{}, {"libver": "latest"}, {"userblock_size": 1024}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_they_are_those_of_the_library(tmp_path: Path, kind: str, file: dict[str, Any]) -> None:
    path = tmp_path / "a.h5"
    options = {"shape": (len(WORDS),)} | KINDS[kind]
    with h5py.File(path, "w", **file) as written:
        data = written.create_dataset("words", dtype=TEXT, **options)
        data[...] = np.array(WORDS, dtype=object).reshape(options["shape"])
    with h5py.File(path) as written:
        assert read_texts(path, written["words"]) == WORDS
        assert [word.decode() for word in written["words"][()].reshape(-1)] == WORDS


def test_what_was_never_written_is_empty(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("words", (10,), TEXT, chunks=(4,))[5] = "x"
    with h5py.File(tmp_path / "a.h5") as file:
        assert read_texts(tmp_path / "a.h5", file["words"]) == [""] * 5 + ["x"] + [""] * 4


def test_damage_is_an_error_and_neither_endless_nor_large(tmp_path: Path) -> None:
    """The library needs 4 GiB for some of these, and does not return from others."""
    path, draws = tmp_path / "a.h5", random.Random(0)
    with h5py.File(path, "w") as file:
        file.create_dataset("words", data=[f"{i} words" for i in range(40)], dtype=TEXT)
        offset = file["words"].id.get_offset()
    content = path.read_bytes()
    heap = content.index(b"GCOL")
    refused, began = 0, time.process_time()
    with h5py.File(path) as file:  # its structure is sound; the texts are damaged
        for _ in range(300):
            damaged = bytearray(content)
            for _ in range(3):
                place = draws.choice([offset, heap]) + draws.randrange(16 * 40)
                damaged[place : place + 4] = draws.choice([b"\xff" * 4, b"\0" * 4, b"\0\0\0\x7f"])
            path.write_bytes(damaged)
            try:
                assert sum(map(len, read_texts(path, file["words"]))) <= len(content) * 40
            except (ValueError, OSError):
                refused += 1
    assert refused > 150
    assert time.process_time() - began < 5

"""Large files that are what they say: as compressible as features are, and larger than the memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from ebsc_core.config.schema import FeaturesChoice
from ebsc_core.data.features.files import read_features
from ebsc_core.data.features.rows import BLOCK_ROWS
from ebsc_core.data.features.source import FeatureSource
from ebsc_core.utils import limits
from ebsc_core.utils.errors import DataError
from ebsc_core.utils.limits import ALWAYS_BYTES, MAX_RATIO, check_size, in_words


def read(path: Path) -> FeatureSource:
    return read_features(FeaturesChoice(path=str(path)))


def write_compressed_h5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=SPARSE, compression="gzip")


def write_compressed_npz(path: Path) -> None:
    np.savez_compressed(path, features=SPARSE)


def write_compressed_parquet(path: Path) -> None:
    columns = {f"c{i}": SPARSE[:, i] for i in range(SPARSE.shape[1])}
    pyarrow.parquet.write_table(pyarrow.table(columns), path, compression="zstd")


# Features after a ReLU: one entry in twenty is not zero. They pack well, and need more than
# what may have any ratio.
SPARSE = np.zeros((36_000, 500), np.float32)
SPARSE[:, ::20] = np.random.default_rng(0).normal(size=(36_000, 25))


@pytest.mark.parametrize(
    ("name", "write"),
    [("a.h5", write_compressed_h5), ("a.npz", write_compressed_npz), ("a.parquet", write_compressed_parquet)],
)
def test_what_packs_as_features_do_is_read(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    write(tmp_path / name)
    assert 10 * (tmp_path / name).stat().st_size < SPARSE.nbytes > ALWAYS_BYTES
    assert np.array_equal(torch.cat(list(read(tmp_path / name).blocks())).numpy(), SPARSE)


def test_a_npy_larger_than_the_memory_is_read_block_by_block(tmp_path: Path) -> None:
    rows = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.float32, (1 << 34, 4))  # holes, on disk
    rows[:2] = 1
    rows.flush()
    source = read(tmp_path / "a.npy")
    assert source.shape == (1 << 34, 4)
    assert next(source.blocks()).shape == (BLOCK_ROWS, 4)
    assert source.ids[(1 << 34) - 1] == str((1 << 34) - 1)


def test_very_wide_rows_come_in_smaller_blocks(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((100, 1 << 20), np.int8))
    assert [len(block) for block in read(tmp_path / "a.npy").blocks()] == [16] * 6 + [4]


def test_a_size_must_fit_what_is_stored_and_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    check_size("a.h5", ALWAYS_BYTES, 1)
    check_size("a.h5", MAX_RATIO << 20, 1 << 20)
    with pytest.raises(DataError, match=r"a\.h5 would need 100 MiB of memory, but holds 1024 KiB;"):
        check_size("a.h5", (MAX_RATIO << 20) + 1, (1 << 20) - 1)
    monkeypatch.setattr(limits, "available_memory", lambda: 5 << 30)
    with pytest.raises(DataError, match=r"a\.h5 needs 6 GiB of memory, 5 GiB are free; .* \.npy"):
        check_size("a.h5", 6 << 30, 6 << 30)


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1 KiB"), (40 << 30, "40 GiB"), (10**60, "over 1024 TiB")],
)
def test_sizes_are_said_in_their_unit(size: int, words: str) -> None:
    assert in_words(size) == words

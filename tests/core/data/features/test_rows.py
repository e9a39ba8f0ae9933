"""Rows held, stored and mapped are the same rows, however they are read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ebsc_core.data.features import rows as module
from ebsc_core.data.features.rows import HeldRows, MappedRows, Rows, SelectedRows, StoredRows, unit_rows
from ebsc_core.utils.errors import DataError

KINDS = {
    "contiguous": {},
    "chunked": {"chunks": (3, 2), "maxshape": (None, 5)},
    "packed": {"compression": "gzip"},
}


def store(path: Path, array: np.ndarray, **how: Any) -> StoredRows:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=array, **how)
    return StoredRows(path, "features")


@given(
    n=st.integers(1, 40),
    size=st.integers(1, 50),
    kind=st.sampled_from([*KINDS]),
    dtype=st.sampled_from(["f4", "f8", ">f4"]),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_every_way_to_read_gives_the_same_rows(
    n: int, size: int, kind: str, dtype: str, data: st.DataObject
) -> None:
    array = np.random.default_rng(n).normal(size=(n, 5)).astype(np.float32)
    array[n // 2] = 0
    expected = F.normalize(torch.from_numpy(array), dim=1)
    positions = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=60)), dtype=np.int64)
    before, module.BLOCK_ROWS = module.BLOCK_ROWS, 7
    try:
        with TemporaryDirectory() as folder:
            stored = store(Path(folder) / "rows.h5", array.astype(dtype), **KINDS[kind])
            doubled = MappedRows(stored, lambda block: 2 * block)
            wider = MappedRows(stored, lambda block: torch.cat([block, block], dim=1), 10)
            assert wider.held().shape == (n, wider.width)
            ways: list[tuple[Rows, int]] = [(HeldRows(expected), 1), (stored, 1), (doubled, 2)]
            for rows, factor in ways:
                assert (len(rows), rows.width) == (n, 5)
                starts, blocks = zip(*rows.blocks(size), strict=True)
                assert list(starts) == list(range(0, n, size))
                assert torch.equal(torch.cat(blocks), factor * expected)
                assert torch.equal(rows.held(), factor * expected)
                assert torch.equal(rows.take(positions), factor * expected[positions])
                chosen = SelectedRows(rows, positions)
                for start, block in chosen.blocks(size):
                    assert torch.equal(block, factor * expected[positions[start : start + size]])
                assert torch.equal(chosen.held(), factor * expected[positions])
                assert torch.equal(chosen.take(np.arange(len(positions))), factor * expected[positions])
    finally:
        module.BLOCK_ROWS = before


def test_a_file_can_be_written_to_between_two_readings(tmp_path: Path) -> None:
    rows = store(tmp_path / "rows.h5", np.ones((4, 2), np.float32))
    list(rows.blocks())
    with h5py.File(tmp_path / "rows.h5", "a") as file:
        file["more"] = 1
    assert len(rows.take(np.array([0, 3]))) == 2


def test_a_file_that_went_missing_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.h5"
    rows = store(path, np.ones((4, 2), np.float32))
    path.unlink()
    with pytest.raises(DataError, match=r"rows\.h5 cannot be read") as error:
        rows.held()
    assert "\n" not in str(error.value)


MEASURED = """
import sys
from pathlib import Path
import torch
from ebsc_core.data.features.rows import StoredRows
from ebsc_core.utils.system import peak_memory_mib

torch.set_num_threads(1)
rows = StoredRows(Path(sys.argv[1]), "features")
gram = torch.zeros(rows.width, rows.width)
before = None
for _, block in rows.blocks(16384):
    gram += block.T @ block
    before = before or peak_memory_mib()
print(peak_memory_mib() - before)
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "rows.h5", "w") as file:  # 256 MB of zeros that take no space
        file.create_dataset("features", (1 << 20, 64), np.float32, chunks=(8192, 64))
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "rows.h5")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 64


@given(exponents=st.lists(st.integers(-110, 110), min_size=1, max_size=8), seed=st.integers(0, 1000))
@settings(deadline=None)
def test_rows_of_any_length_keep_their_direction(exponents: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(len(exponents), 5, generator=generator)
    lengths = torch.tensor([2.0**exponent for exponent in exponents])[:, None]
    assert torch.equal(unit_rows(rows * lengths), unit_rows(rows))
    assert torch.equal(unit_rows(rows * lengths, in_place=True), unit_rows(rows))


def test_rows_of_zeros_stay_zero_and_what_is_not_finite_stays_so() -> None:
    rows = torch.tensor([[0.0, 0.0], [1e30, 0.0], [torch.inf, 1.0], [torch.nan, 1.0]])
    scaled = unit_rows(rows)
    assert scaled[:2].tolist() == [[0, 0], [1, 0]]
    assert not scaled[2:].isfinite().all(dim=1).any()


@pytest.mark.parametrize("scale", [1e-30, 1e20, 1e30])
def test_stored_rows_of_any_length_are_read(tmp_path: Path, scale: float) -> None:
    rows = np.random.default_rng(0).normal(size=(6, 3))
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["small"], file["scaled"] = rows.astype(np.float32), (rows * scale).astype(np.float32)
    expected, found = (StoredRows(tmp_path / "rows.h5", name).held() for name in ("small", "scaled"))
    torch.testing.assert_close(found, expected)


def test_rows_are_mapped_in_blocks_wherever_they_are_read() -> None:
    """The change of a block may need several times its memory."""
    seen: list[int] = []

    def change(block: torch.Tensor) -> torch.Tensor:
        seen.append(len(block))
        return 2 * block

    held = torch.arange(4.0 * module.BLOCK_ROWS).reshape(-1, 2)
    positions = np.delete(np.arange(len(held)), 11)
    taken = MappedRows(HeldRows(held), change).take(positions)
    assert torch.equal(taken, 2 * held[positions])
    assert sum(seen) == len(positions)
    assert max(seen) <= module.BLOCK_ROWS


@pytest.mark.parametrize("width", [1, 256, 257, 4096, 1 << 26])
def test_a_block_is_bounded_in_rows_and_in_bytes(width: int) -> None:
    size = module.block_rows(width)
    assert 1 <= size <= module.BLOCK_ROWS
    assert size == 1 or 4 * size * width <= module.BLOCK_BYTES
    assert size == module.BLOCK_ROWS or 4 * (size + 1) * width > module.BLOCK_BYTES


def test_wide_rows_come_in_smaller_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mapped rows, too, whether the rows are wide before the change or after it."""
    monkeypatch.setattr(module, "BLOCK_BYTES", 4 * 6 * 10)
    narrow, wide = (np.random.default_rng(0).normal(size=(25, width)) for width in (2, 6))
    stored = store(tmp_path / "narrow.h5", narrow), store(tmp_path / "wide.h5", wide)
    widened = MappedRows(stored[0], lambda block: block.repeat(1, 3), 6)
    narrowed = MappedRows(stored[1], lambda block: block[:, :2], 2)
    held, selected = HeldRows(stored[1].held()), SelectedRows(stored[1], np.arange(25))
    for rows in (stored[1], held, widened, narrowed, selected):
        assert [len(block) for _, block in rows.blocks()] == [10, 10, 5]

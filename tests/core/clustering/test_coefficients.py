from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.clustering.coefficients import (
    Dictionary,
    exclude_own,
    expressed,
    self_expressive_coefficients,
)
from ebsc_core.clustering.inner_product import InnerProductModel
from ebsc_core.config.schema import SearchOptions
from ebsc_core.plugins.interfaces import CoefficientModel, Coefficients


class Cosines(CoefficientModel):
    def coefficients(self, queries: Tensor, encoded: Tensor, top_k: int, own: Tensor) -> Coefficients:
        scores = queries @ encoded.T
        exclude_own(scores, own)
        top = scores.topk(top_k, dim=1)
        return Coefficients(top.indices, top.values)


def unit_rows(n: int, width: int = 5, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, width, generator=generator, dtype=torch.float64), dim=1)


@given(n=st.integers(2, 40), block=st.integers(1, 50), seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_the_block_size_changes_nothing(n: int, block: int, seed: int) -> None:
    rows, top_k = unit_rows(n, seed=seed), min(3, n - 1)
    whole = self_expressive_coefficients(Cosines(), rows, top_k)
    blocked = self_expressive_coefficients(Cosines(), rows, top_k, block=block)
    assert torch.equal(blocked.indices, whole.indices)
    torch.testing.assert_close(blocked.values, whole.values)


@given(n=st.integers(2, 30), seed=st.integers(0, 10_000), data=st.data())
@settings(max_examples=30, deadline=None)
def test_coefficients_are_the_largest_of_the_other_rows(n: int, seed: int, data: st.DataObject) -> None:
    rows = unit_rows(n, seed=seed)
    top_k = data.draw(st.integers(1, n - 1))
    found = self_expressive_coefficients(Cosines(), rows, top_k, block=7)
    cosines = (rows @ rows.T).numpy()
    for i in range(n):
        others = sorted((cosines[i, j] for j in range(n) if j != i), reverse=True)
        assert i not in found.indices[i]
        np.testing.assert_allclose(found.values[i], others[:top_k], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("block", [1, 2, 3, None])
def test_a_duplicate_is_used_though_the_row_itself_is_not(block: int | None) -> None:
    rows = unit_rows(5)
    rows[3] = rows[1]
    found = self_expressive_coefficients(Cosines(), rows, 1, block)
    assert found.indices[1].tolist() == [3]
    assert found.indices[3].tolist() == [1]


def test_a_query_from_outside_the_dictionary_may_use_every_entry() -> None:
    rows = unit_rows(4)
    found = expressed(Cosines(), rows, rows, 1, torch.tensor([-1, 1, -1, 3]))
    assert found.indices[0].tolist() == [0]
    assert found.indices[2].tolist() == [2]
    assert found.indices[1].tolist() != [1]
    assert bool(torch.isfinite(found.values).all())


@given(n=st.integers(2, 30), m=st.integers(1, 30), block=st.integers(1, 40), seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_new_rows_are_expressed_by_the_whole_dictionary(n: int, m: int, block: int, seed: int) -> None:
    dictionary, rows = unit_rows(n, seed=seed), unit_rows(m, seed=seed + 1)
    found = expressed(Cosines(), rows, dictionary, min(3, n), torch.full((m,), -1), block)
    cosines = (rows @ dictionary.T).numpy()
    np.testing.assert_allclose(found.values, -np.sort(-cosines, axis=1)[:, : min(3, n)], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(cosines, found.indices.numpy(), 1), found.values, atol=1e-6)


MEASURE = """
import sys, torch
from ebsc_core.clustering.affinity import symmetrized
from ebsc_core.clustering.coefficients import self_expressive_coefficients
from tests_cosines import Cosines

def peak():
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

torch.set_num_threads(1)
rows = torch.nn.functional.normalize(torch.randn(20_000, 16), dim=1)
warm = symmetrized(self_expressive_coefficients(Cosines(), rows[:500], 10))
before = peak()
symmetrized(self_expressive_coefficients(Cosines(), rows, 10))
print(peak() - before)
"""

MODEL = """
from ebsc_core.clustering.coefficients import exclude_own
from ebsc_core.plugins.interfaces import CoefficientModel, Coefficients

class Cosines(CoefficientModel):
    def coefficients(self, queries, encoded, top_k, own):
        scores = queries @ encoded.T
        exclude_own(scores, own)
        top = scores.topk(top_k, dim=1)
        return Coefficients(top.indices, top.values)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_nothing_as_large_as_n_by_n_is_held(tmp_path: Path) -> None:
    (tmp_path / "tests_cosines.py").write_text(MODEL)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 20_000 * 20_000 * 4 / 4


class Watched(InnerProductModel):
    """Notes the precision of matrix products wherever it computes some."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, set[str]] = {}

    def _note(self, what: str, rows: Tensor) -> Tensor:
        self.seen.setdefault(what, set()).add(torch.get_float32_matmul_precision())
        return rows

    def keys(self, rows: Tensor) -> Tensor:
        return self._note("keys", rows)

    def queries(self, rows: Tensor) -> Tensor:
        return self._note("queries", rows)

    def weigh(self, scores: Tensor, normaliser: Tensor) -> Tensor:
        return scores


@pytest.mark.parametrize("method", ["exact", "cells"])
def test_keys_and_queries_are_exact_where_training_allows_itself_less(
    method: Literal["exact", "cells"],
) -> None:
    model, rows = Watched(), unit_rows(300).float()
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        dictionary = Dictionary(model, rows, search=SearchOptions(method=method, cell_rows=16))
        dictionary.express(rows, 3, torch.arange(300))
    finally:
        torch.set_float32_matmul_precision(before)
    assert model.seen == {"keys": {"highest"}, "queries": {"highest"}}

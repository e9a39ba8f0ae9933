from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.clustering.coefficients import (
    affinity,
    exclude_own,
    expressed,
    nearest_neighbours,
    self_expressive_coefficients,
    symmetrised,
)
from ebsc_core.config.schema import AffinityOptions
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


def random_coefficients(n: int, k: int, seed: int) -> Coefficients:
    """Signed, some of them zero, never on self."""
    rng = np.random.default_rng(seed)
    indices = np.stack([rng.choice(np.delete(np.arange(n), i), k, replace=False) for i in range(n)])
    values = rng.normal(size=(n, k)) * (rng.random((n, k)) < 0.7)
    return Coefficients(torch.from_numpy(indices), torch.from_numpy(values).float())


@given(n=st.integers(2, 25), seed=st.integers(0, 10_000), data=st.data())
@settings(max_examples=50, deadline=None)
def test_affinity_agrees_with_its_definition(n: int, seed: int, data: st.DataObject) -> None:
    coefficients = random_coefficients(n, data.draw(st.integers(1, n - 1)), seed)
    dense = np.zeros((n, n))
    np.put_along_axis(dense, coefficients.indices.numpy(), np.abs(coefficients.values.numpy()), axis=1)
    for row in dense:
        if row.sum() > 0:
            row /= row.sum()
    graph = symmetrised(coefficients)
    np.testing.assert_allclose(graph.toarray(), (dense + dense.T) / 2, atol=1e-6)


@given(n=st.integers(2, 25), seed=st.integers(0, 10_000), data=st.data())
@settings(max_examples=50, deadline=None)
def test_affinity_is_symmetric_non_negative_and_zero_on_the_diagonal(
    n: int, seed: int, data: st.DataObject
) -> None:
    graph = symmetrised(random_coefficients(n, data.draw(st.integers(1, n - 1)), seed))
    dense = graph.toarray()
    assert (dense == dense.T).all()
    assert (dense >= 0).all()
    assert (dense.diagonal() == 0).all()
    assert (graph.data != 0).all()


def test_every_expressed_row_brings_the_same_weight() -> None:
    coefficients = random_coefficients(30, 6, 1)
    expressed = int((coefficients.values != 0).any(dim=1).sum())
    assert symmetrised(coefficients).sum() == pytest.approx(expressed, rel=1e-5)


def test_a_row_of_zeros_stays_zero() -> None:
    coefficients = Coefficients(torch.tensor([[1], [0], [0]]), torch.tensor([[1.0], [2.0], [0.0]]))
    assert symmetrised(coefficients).toarray().tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]


def test_a_weight_on_the_row_itself_is_dropped() -> None:
    coefficients = Coefficients(torch.tensor([[0], [0]]), torch.ones(2, 1))
    assert symmetrised(coefficients).toarray().tolist() == [[0, 0.5], [0.5, 0]]


@given(n=st.integers(2, 30), m=st.integers(1, 30), block=st.integers(1, 40), seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_new_rows_are_expressed_by_the_whole_dictionary(n: int, m: int, block: int, seed: int) -> None:
    dictionary, rows = unit_rows(n, seed=seed), unit_rows(m, seed=seed + 1)
    found = expressed(Cosines(), rows, dictionary, min(3, n), torch.full((m,), -1), block)
    cosines = (rows @ dictionary.T).numpy()
    np.testing.assert_allclose(found.values, -np.sort(-cosines, axis=1)[:, : min(3, n)], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(cosines, found.indices.numpy(), 1), found.values, atol=1e-6)


def dense(coefficients: Coefficients) -> np.ndarray:
    n = len(coefficients.indices)
    full = np.zeros((n, n))
    np.put_along_axis(full, coefficients.indices.numpy(), coefficients.values.numpy(), axis=1)
    return full


@given(n=st.integers(3, 25), seed=st.integers(0, 10_000), data=st.data())
@settings(max_examples=60, deadline=None)
def test_nearest_neighbours_agree_with_their_definition(n: int, seed: int, data: st.DataObject) -> None:
    """Every edge goes to one of the nearest; which of several at one distance is left open."""
    coefficients = random_coefficients(n, data.draw(st.integers(1, n - 1)), seed)
    k = data.draw(st.integers(1, n - 1))
    rows = dense(coefficients)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    reach = np.sort(distances, axis=1)[:, k - 1]
    must, may = distances < reach[:, None] - 1e-5, distances <= reach[:, None] + 1e-5
    graph = nearest_neighbours(coefficients, k).toarray()
    assert np.isin(graph, [0, 0.5, 1]).all()
    assert (graph == graph.T).all()
    assert (graph.diagonal() == 0).all()
    assert (graph[must] >= 0.5).all()
    assert (graph[must & must.T] == 1).all()
    assert (graph[~may & ~may.T] == 0).all()
    assert graph.sum() == pytest.approx(n * k)


def test_nearest_neighbours_are_those_expressed_alike() -> None:
    """0 and 1 use the same rows, 2 and 3 others; none of them uses another of the four."""
    indices = torch.tensor([[4, 5], [4, 5], [6, 7], [6, 7], [0, 1], [0, 1], [2, 3], [2, 3]])
    values = torch.tensor([[1.0, 2.0], [3.0, 6.0], [1.0, -1.0], [2.0, -2.0]] + [[1.0, 1.0]] * 4)
    graph = nearest_neighbours(Coefficients(indices, values), 1).toarray()
    assert sorted(zip(*np.nonzero(graph), strict=True)) == [(i, i ^ 1) for i in range(8)]
    assert set(graph[graph > 0]) == {1.0}


def test_rows_of_zeros_have_neighbours_but_never_themselves() -> None:
    coefficients = Coefficients(torch.zeros(6, 2, dtype=torch.int64), torch.zeros(6, 2))
    graph = nearest_neighbours(coefficients, 2).toarray()
    assert (graph.diagonal() == 0).all()
    assert graph.sum() == 12
    assert np.isfinite(graph).all()


def test_coefficients_are_left_as_they_were() -> None:
    coefficients = random_coefficients(20, 4, 0)
    values, indices = coefficients.values.clone(), coefficients.indices.clone()
    nearest_neighbours(coefficients, 3)
    symmetrised(coefficients)
    assert torch.equal(coefficients.values, values)
    assert torch.equal(coefficients.indices, indices)


@pytest.mark.parametrize("n_neighbors", [2, 5])
def test_the_form_of_the_affinity_is_chosen_by_name(n_neighbors: int) -> None:
    coefficients = random_coefficients(20, 4, 0)
    chosen = affinity(coefficients, AffinityOptions(form="nearest_neighbors", n_neighbors=n_neighbors))
    assert (chosen != nearest_neighbours(coefficients, n_neighbors)).nnz == 0
    assert (affinity(coefficients, AffinityOptions()) != symmetrised(coefficients)).nnz == 0


MEASURE = """
import sys, torch
from ebsc_core.clustering.coefficients import symmetrised, self_expressive_coefficients
from tests_cosines import Cosines

def peak():
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

torch.set_num_threads(1)
rows = torch.nn.functional.normalize(torch.randn(20_000, 16), dim=1)
warm = symmetrised(self_expressive_coefficients(Cosines(), rows[:500], 10))
before = peak()
symmetrised(self_expressive_coefficients(Cosines(), rows, 10))
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

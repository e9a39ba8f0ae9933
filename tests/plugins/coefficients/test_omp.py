from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import orthogonal_mp
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.clustering.coefficients import self_expressive_coefficients
from ebsc_core.plugins.interfaces import Coefficients
from ebsc_plugins.coefficients import omp
from ebsc_plugins.coefficients.omp import OmpOptions, OrthogonalMatchingPursuit


def unit_rows(n: int, width: int = 12, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, width, generator=generator, dtype=torch.float64), dim=1)


def dense(found: Coefficients, n: int) -> Tensor:
    zeros = torch.zeros(len(found.indices), n, dtype=torch.float64)
    return zeros.scatter_add(1, found.indices, found.values.double())


def model(**options: float) -> OrthogonalMatchingPursuit:
    return OrthogonalMatchingPursuit(OmpOptions(**options), 12)


def solve(rows: Tensor, top_k: int, block: int | None = None, **options: float) -> Tensor:
    return dense(self_expressive_coefficients(model(**options), rows, top_k, block), len(rows))


@given(n=st.integers(5, 40), seed=st.integers(0, 10_000), data=st.data())
@settings(max_examples=40, deadline=None)
def test_it_agrees_with_scikit_learn(n: int, seed: int, data: st.DataObject) -> None:
    rows, top_k = unit_rows(n, seed=seed), data.draw(st.integers(1, min(8, n - 1)))
    found = solve(rows, top_k)
    for i in range(n):
        others = np.delete(np.arange(n), i)
        expected = orthogonal_mp(rows[others].T.numpy(), rows[i].numpy(), n_nonzero_coefs=top_k)
        np.testing.assert_allclose(found[i, others], expected, rtol=1e-4, atol=1e-5)
    assert bool((found.diagonal() == 0).all())


def test_a_row_stops_at_the_threshold() -> None:
    rows = unit_rows(50)
    for threshold in (0.3, 0.05):
        stopped, whole = solve(rows, 11, threshold=threshold), solve(rows, 11, threshold=0)
        for i in range(50):
            used = int((stopped[i] != 0).sum())
            shorter = [solve(rows, k, threshold=0)[i] for k in (used - 1, used) if k]
            errors = [float((rows[i] - c @ rows).square().sum()) for c in shorter]
            assert errors[-1] < threshold or used == 11
            assert used == 1 or errors[0] >= threshold
            torch.testing.assert_close(stopped[i], shorter[-1])
            if i == 5:  # the loop above is slow enough
                break
        assert int((whole != 0).sum()) > int((stopped != 0).sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_duplicates_are_chosen_once(dtype: torch.dtype) -> None:
    rows = unit_rows(6).to(dtype)
    # Row 0 is of the span of 1 and 2, each of which is there four times.
    rows[0] = F.normalize(0.8 * rows[1] - 0.5 * rows[2], dim=0)
    rows = torch.cat([rows, rows[1:3], rows[1:3], -rows[1:3]])
    found = solve(rows, 9, threshold=0)
    assert bool(torch.isfinite(found).all())
    assert int((found[0].abs() > 1e-4).sum()) == 2
    torch.testing.assert_close(found @ rows.double(), rows.double(), rtol=0, atol=2)
    error = (rows[0].double() - found[0] @ rows.double()).norm()
    assert float(error) < 1e-6
    # A duplicate expresses its row alone.
    assert float((found[1].abs() > 1e-4).sum()) == 1


def test_a_dictionary_of_less_rank_than_top_k() -> None:
    rows = unit_rows(30, width=3)
    found = solve(rows, 20, threshold=0)
    assert bool(torch.isfinite(found).all())
    assert float((found @ rows - rows).abs().max()) < 1e-5
    assert float(found.abs().max()) < 100


def test_small_memory_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = unit_rows(30)
    expected = solve(rows, 4)
    monkeypatch.setattr(omp, "AT_ONCE", 100)
    torch.testing.assert_close(solve(rows, 4), expected)


@given(st.permutations(range(20)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_the_rows_changes_nothing(order: list[int]) -> None:
    rows = unit_rows(20)
    torch.testing.assert_close(solve(rows[order], 4), solve(rows, 4)[order][:, order])


def test_a_query_from_outside_may_use_every_row() -> None:
    rows = unit_rows(20)
    found = model().coefficients(rows[[3, 3]], model().encode(rows), 4, torch.tensor([-1, 3]))
    assert found.indices[0, 0] == 3
    assert found.values[0].tolist() == pytest.approx([1, 0, 0, 0])
    assert 3 not in found.indices[1]


@pytest.mark.parametrize("top_k", [1, 5, 9])
def test_no_row_is_chosen_twice(top_k: int) -> None:
    rows = unit_rows(10, width=4)
    found = self_expressive_coefficients(model(), rows, top_k)
    for i, positions in enumerate(found.indices.tolist()):
        assert len({i, *positions}) == top_k + 1


def test_rows_are_expressed_by_their_own_subspace(subspaces: Callable[..., tuple[Tensor, Tensor]]) -> None:
    rows, truth = subspaces(5, 30, 3)
    found = solve(rows, 10).abs()
    within = (found * (truth[:, None] == truth)).sum(dim=1) / found.sum(dim=1)
    assert float((within > 0.999).double().mean()) > 0.95
    # Three rows span the subspace; no more are taken.
    assert int((found > 0).sum(dim=1).median()) == 3

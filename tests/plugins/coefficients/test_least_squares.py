from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.clustering.coefficients import self_expressive_coefficients
from ebsc_core.plugins.interfaces import Coefficients
from ebsc_plugins.coefficients.least_squares import LeastSquares, LeastSquaresOptions

shapes = {"n": st.integers(2, 30), "width": st.integers(1, 30), "seed": st.integers(0, 10_000)}
gammas = st.floats(0.01, 1e4)


def unit_rows(n: int, width: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, width, generator=generator, dtype=torch.float64), dim=1)


def dense(found: Coefficients, n: int) -> np.ndarray:
    return torch.zeros(len(found.indices), n).scatter_add(1, found.indices, found.values).numpy()


def solve(rows: Tensor, block: int | None = None, **options: float) -> np.ndarray:
    model = LeastSquares(LeastSquaresOptions(**options), rows.shape[1])
    return dense(self_expressive_coefficients(model, rows, len(rows) - 1, block), len(rows))


def ridge_regression(dictionary: np.ndarray, query: np.ndarray, gamma: float) -> np.ndarray:
    """``argmin_c ‖c‖² + γ‖x - Xᵀc‖²`` as one least-squares problem."""
    equations = np.vstack([np.eye(len(dictionary)), np.sqrt(gamma) * dictionary.T])
    wanted = np.concatenate([np.zeros(len(dictionary)), np.sqrt(gamma) * query])
    return np.linalg.lstsq(equations, wanted, rcond=None)[0]


@given(gamma=gammas, **shapes)
@settings(max_examples=40, deadline=None)
def test_it_agrees_with_a_dense_solver(n: int, width: int, seed: int, gamma: float) -> None:
    rows = unit_rows(n, width, seed)
    found = solve(rows, gamma=gamma)
    for i, row in enumerate(rows.numpy()):
        expected = ridge_regression(rows.numpy(), row, gamma)
        expected[i] = 0  # dropped afterwards
        np.testing.assert_allclose(found[i], expected, rtol=1e-4, atol=1e-6)


@given(gamma=gammas, **shapes)
@settings(max_examples=40, deadline=None)
def test_a_row_that_may_not_use_itself(n: int, width: int, seed: int, gamma: float) -> None:
    rows = unit_rows(n, width, seed)
    found = solve(rows, gamma=gamma, exclude_self=True)
    for i, row in enumerate(rows.numpy()):
        others = np.delete(np.arange(n), i)
        expected = ridge_regression(rows.numpy()[others], row, gamma)
        np.testing.assert_allclose(found[i, others], expected, rtol=1e-4, atol=1e-6)
        assert found[i, i] == 0


@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("width", [4, 40])
def test_a_query_from_outside_uses_every_row(exclude_self: bool, width: int) -> None:
    rows, query = unit_rows(20, width), unit_rows(1, width, seed=1)
    model = LeastSquares(LeastSquaresOptions(exclude_self=exclude_self), width)
    found = model.coefficients(query, model.encode(rows), 20, torch.tensor([-1]))
    expected = ridge_regression(rows.numpy(), query[0].numpy(), 10)
    np.testing.assert_allclose(
        dense(Coefficients(found.indices, found.values.float()), 20)[0], expected, rtol=1e-4
    )


@pytest.mark.parametrize("exclude_self", [False, True])
def test_the_largest_coefficients_are_kept(exclude_self: bool) -> None:
    rows = unit_rows(25)
    model = LeastSquares(LeastSquaresOptions(exclude_self=exclude_self), 6)
    kept = self_expressive_coefficients(model, rows, 4)
    whole = torch.from_numpy(solve(rows, exclude_self=exclude_self))
    expected = whole.abs().topk(4, dim=1).indices
    assert torch.equal(kept.indices, expected)
    torch.testing.assert_close(kept.values, whole.gather(1, expected))


@given(block=st.integers(1, 30), order=st.permutations(range(15)))
@settings(max_examples=20, deadline=None)
def test_neither_blocks_nor_order_matter(block: int, order: list[int]) -> None:
    rows = unit_rows(15)
    for exclude_self in (False, True):
        whole = solve(rows, exclude_self=exclude_self)
        again = solve(rows[order], block, exclude_self=exclude_self)
        np.testing.assert_allclose(again, whole[order][:, order], rtol=1e-5, atol=1e-7)


def test_duplicates_share() -> None:
    rows = unit_rows(12)
    rows = torch.cat([rows, rows[:1], rows[:1]])
    found = solve(rows, exclude_self=True)
    assert found[0, 12] == pytest.approx(found[0, 13])
    assert np.isfinite(found).all()


def test_float32_is_enough() -> None:
    rows = unit_rows(300, 40)
    for gamma in (10, 1e4):
        exact = solve(rows, gamma=gamma, exclude_self=True)
        np.testing.assert_allclose(solve(rows.float(), gamma=gamma, exclude_self=True), exact, atol=1e-4)


def test_rows_are_expressed_by_their_own_subspace() -> None:
    generator = torch.Generator().manual_seed(0)
    subspaces = torch.linalg.qr(torch.randn(30, 30, generator=generator)).Q.T.reshape(6, 5, 30)
    points = torch.randn(6, 20, 5, generator=generator) @ subspaces  # orthogonal to one another
    found = np.abs(solve(F.normalize(points.flatten(0, 1), dim=1)))
    truth = np.arange(6).repeat(20)
    assert found[truth[:, None] != truth].max() < 1e-5 < found.max()

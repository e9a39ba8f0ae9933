from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.data.features import whitening as ridge
from ebsc_core.data.features.rows import HeldRows, Rows
from ebsc_core.data.features.whitening import RidgeInverse, Whitening, mean_eigenvalue

shapes = {"n": st.integers(1, 30), "width": st.integers(1, 30), "seed": st.integers(0, 10_000)}


def unit_rows(n: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, width, generator=generator, dtype=torch.float64), dim=1)


@given(λ=st.floats(0.01, 10), **shapes)
@settings(max_examples=40, deadline=None)
def test_both_sides_and_every_chunk_give_the_inverse(n: int, width: int, seed: int, λ: float) -> None:
    rows, queries = unit_rows(n, width, seed), unit_rows(7, width, seed + 1)
    before, ridge.CHUNK = ridge.CHUNK, 4
    try:
        inverse = RidgeInverse(rows, λ)
        mapped, (own, leverage) = inverse(queries), inverse.own()
        with_gradients = inverse(queries.clone().requires_grad_())
    finally:
        ridge.CHUNK = before
    matrix = np.linalg.inv(rows.numpy().T @ rows.numpy() + λ * np.eye(width))
    np.testing.assert_allclose(mapped, queries.numpy() @ matrix, rtol=1e-8, atol=1e-10)
    assert torch.equal(with_gradients, mapped)
    expected = rows.numpy() @ matrix
    np.testing.assert_allclose(own, expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(leverage, (expected * rows.numpy()).sum(axis=1), rtol=1e-8)


@pytest.mark.parametrize("n", [20, 100])
def test_own_rows_stay_exact_with_hardly_any_ridge(n: int) -> None:
    rows = unit_rows(n, 64)
    own, leverage = RidgeInverse(rows, 1e-8).own()
    expected = np.linalg.pinv(rows.numpy()).T  # the limit without any ridge
    np.testing.assert_allclose(own, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(leverage, (expected * rows.numpy()).sum(axis=1), rtol=1e-6)


@given(**shapes)
@settings(max_examples=40, deadline=None)
def test_the_mean_eigenvalue_is_of_the_smaller_side(n: int, width: int, seed: int) -> None:
    rows = unit_rows(n, width, seed).numpy()
    smaller = rows @ rows.T if n <= width else rows.T @ rows
    assert float(mean_eigenvalue(torch.from_numpy(rows))) == pytest.approx(np.linalg.eigvalsh(smaller).mean())


@given(**shapes)
@settings(max_examples=40, deadline=None)
def test_a_whitened_row_is_what_ridge_regression_leaves_of_it(n: int, width: int, seed: int) -> None:
    rows, query = unit_rows(n, width, seed).numpy(), unit_rows(1, width, seed + 1).numpy()[0]
    λ = float(mean_eigenvalue(torch.from_numpy(rows)))
    equations = np.vstack([rows.T, np.sqrt(λ) * np.eye(n)])
    coefficients = np.linalg.lstsq(equations, np.concatenate([query, np.zeros(n)]), rcond=None)[0]
    rest = query - coefficients @ rows
    whitened = Whitening(torch.from_numpy(rows))(torch.from_numpy(query)[None])
    np.testing.assert_allclose(whitened[0], rest / np.linalg.norm(rest), rtol=1e-6, atol=1e-8)


class Split(HeldRows):
    """Read in blocks of so many rows, whatever is asked for."""

    def __init__(self, rows: Tensor, size: int) -> None:
        super().__init__(rows)
        self.size = size

    def blocks(self, size: int | None = None) -> Iterator[tuple[int, Tensor]]:
        return super().blocks(self.size)


@given(size=st.integers(1, 40), scale=st.floats(0, 4), **shapes)
@settings(max_examples=40, deadline=None)
def test_rows_read_in_blocks_are_whitened_alike(
    n: int, width: int, seed: int, size: int, scale: float
) -> None:
    spread = torch.logspace(0, -scale, width, dtype=torch.float64)
    rows = F.normalize(unit_rows(n, width, seed) * spread, dim=1)
    blocks: Rows = Split(rows, size)
    queries = unit_rows(3, width, seed + 1)
    torch.testing.assert_close(Whitening(blocks)(queries), Whitening(rows)(queries), rtol=1e-7, atol=1e-9)
    single: Rows = Split(rows.float(), size)
    torch.testing.assert_close(
        Whitening(single)(queries.float()), Whitening(rows.float())(queries.float()), rtol=0, atol=1e-6
    )


def test_rows_without_any_extent_in_blocks_stay_where_they_are() -> None:
    assert torch.equal(Whitening(Split(torch.zeros(12, 8), 5))(torch.zeros(3, 8)), torch.zeros(3, 8))


def test_it_finds_classes_that_a_common_direction_hides() -> None:
    """Three directions, each row one of them plus far more of a fourth that all share."""
    classes = torch.arange(60) % 3
    own = torch.eye(10, dtype=torch.float64)[classes]
    generator = torch.Generator().manual_seed(0)
    noise = 0.3 * torch.randn(60, 10, generator=generator, dtype=torch.float64)
    rows = F.normalize(20 * torch.eye(10, dtype=torch.float64)[9] + own + noise, dim=1)
    same = classes[:, None] == classes

    def gap(shown: Tensor) -> float:
        cosines = shown @ shown.T
        return float(cosines[same].mean() - cosines[~same].mean())

    assert gap(rows) < 0.01
    assert gap(Whitening(rows)(rows)) > 0.15


def test_it_is_differentiable_in_the_rows_it_is_given_alone() -> None:
    rows = unit_rows(8, 5).requires_grad_()
    queries = unit_rows(3, 5, 1).requires_grad_()
    whitening = Whitening(rows)
    assert torch.autograd.gradcheck(whitening, queries)
    whitening(queries)[:, 0].sum().backward()
    assert queries.grad is not None
    assert rows.grad is None


@pytest.mark.parametrize("n", [4, 12])
def test_rows_without_any_extent_stay_where_they_are(n: int) -> None:
    assert torch.equal(Whitening(torch.zeros(n, 8))(torch.zeros(n, 8)), torch.zeros(n, 8))


def test_it_keeps_dtype_and_device_of_the_rows() -> None:
    rows = unit_rows(9, 4).float()
    whitened = Whitening(rows)(rows)
    assert whitened.dtype == torch.float32
    torch.testing.assert_close(whitened.norm(dim=1), torch.ones(9))

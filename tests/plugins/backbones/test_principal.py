"""Principal directions: against the singular value decomposition of all rows at once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ebsc_plugins.backbones import principal
from ebsc_plugins.backbones.principal import fitting_images, principal_directions


def rows_of(n: int, width: int, rank: int, seed: int) -> Tensor:
    """Rows of this rank whose singular values are well apart."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.linalg.qr(torch.randn(n, rank, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(width, rank, generator=generator, dtype=torch.float64)).Q
    return left * (3.0 * 1.3 ** -torch.arange(rank)) @ right.T


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, int, int]:
    """Rows, a number of components, and a length of blocks."""
    n, width = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    rank = draw(st.integers(1, min(n, width)))
    components = draw(st.integers(1, min(n, width)))
    return rows_of(n, width, rank, draw(st.integers(0, 99))), components, draw(st.integers(1, n))


@settings(max_examples=200, deadline=None)
@given(problems())
def test_directions_are_the_leading_right_singular_vectors(problem: tuple[Tensor, int, int]) -> None:
    rows, components, block = problem
    directions, squares = principal_directions(rows.split(block), len(rows), components)
    assert directions.shape == (rows.shape[1], components)
    _, singular, right = torch.linalg.svd(rows, full_matrices=False)
    torch.testing.assert_close(squares, singular[:components].square(), rtol=1e-9, atol=1e-9)
    kept = int((singular[:components] > 1e-5).sum())
    found, expected = directions[:, :kept], right[:kept].T
    torch.testing.assert_close((found * expected).sum(dim=0).abs(), torch.ones(kept, dtype=torch.float64))
    torch.testing.assert_close(found.T @ found, torch.eye(kept, dtype=torch.float64), rtol=0, atol=1e-7)
    assert not directions[:, kept:].any()
    assert not squares[kept:].any()


@settings(max_examples=50, deadline=None)
@given(problems())
def test_signs_do_not_hang_on_the_rows_signs_or_blocks(problem: tuple[Tensor, int, int]) -> None:
    rows, components, block = problem
    directions, _ = principal_directions(rows.split(block), len(rows), components)
    again, _ = principal_directions((-rows,), len(rows), components)
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    assert bool((largest >= 0).all())
    # Where two entries are equally large, rounding decides which is made positive.
    top = directions.abs().topk(min(2, len(directions)), dim=0).values
    clear = (top[0] - top[-1] > 1e-6) if len(top) > 1 else torch.ones(components, dtype=torch.bool)
    torch.testing.assert_close(directions[:, clear], again[:, clear], rtol=0, atol=1e-6)


def test_rows_without_extent_give_zeros() -> None:
    for shape in ((3, 5), (5, 3)):
        directions, squares = principal_directions((torch.zeros(shape),), shape[0], 2)
        assert not directions.any()
        assert not squares.any()


def test_images_to_fit_to_span_the_whole_set() -> None:
    images = torch.arange(101).view(-1, 1, 1, 1)
    assert fitting_images(images, 5, 11).flatten().tolist() == list(range(0, 101, 10))
    assert fitting_images(images, 5, 101) is images
    assert len(fitting_images(images, 5, 100).unique()) == 100


@pytest.mark.parametrize(("n", "width"), [(4, 30), (30, 4)])
def test_the_problem_solved_is_as_small_as_it_can_be(
    monkeypatch: pytest.MonkeyPatch, n: int, width: int
) -> None:
    sizes, solve = [], principal._leading

    def leading(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
        sizes.append(len(matrix))
        return solve(matrix, count)

    monkeypatch.setattr(principal, "_leading", leading)
    principal_directions(torch.rand(n, width).split(3), n, 2)
    assert sizes == [4]

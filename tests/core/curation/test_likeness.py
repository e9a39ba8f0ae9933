"""The similarity is a correlation that slight changes leave alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebsc_core.config.schema import SearchOptions
from ebsc_core.curation.likeness import Likeness
from ebsc_core.curation.neighbors import bulk_end, nearest
from ebsc_core.curation.thumbnails import SIDE
from support.photographs import photographs


def gray(n: int, seed: int = 0) -> np.ndarray:
    return photographs(n, SIDE, seed)[..., 0]


def test_it_is_symmetric_and_one_with_itself() -> None:
    likeness = Likeness(gray(60))
    first, second = np.triu_indices(60)
    there, back = likeness.similarities(first, second), likeness.similarities(second, first)
    assert np.allclose(there, back, atol=1e-5)
    assert np.allclose(there[first == second], 1, atol=1e-5)
    assert there[first != second].max() < 0.7


@settings(max_examples=20)
@given(level=st.integers(-20, 20), contrast=st.floats(0.8, 1.2), seed=st.integers(0, 5))
def test_brightness_and_contrast_hardly_matter(level: int, contrast: float, seed: int) -> None:
    pictures = gray(60, seed).astype(float)
    changed = (128 + contrast * (pictures[:1] - 128) + level).clip(0, 255)
    likeness = Likeness(np.concatenate([pictures, changed]).astype(np.uint8))
    assert likeness.similarities(np.array([0]), np.array([60]))[0] > 0.95


def test_the_rows_of_the_search_are_the_similarities_without_a_crop() -> None:
    likeness = Likeness(gray(40))
    rows = likeness.rows
    first, second = np.triu_indices(40, 1)
    plain = (rows[first] * rows[second]).sum(dim=1).numpy()
    assert (likeness.similarities(first, second) >= plain - 1e-5).all()


def test_many_pairs_at_once_are_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ebsc_core.curation.likeness.BLOCK", 7)
    likeness, numbers = Likeness(gray(40)), np.random.default_rng(0)
    first, second = numbers.integers(0, 40, (2, 100))
    alone = [likeness.similarities(first[[i]], second[[i]])[0] for i in range(100)]
    assert np.allclose(likeness.similarities(first, second), alone, atol=1e-5)
    assert likeness.similarities(first[:0], second[:0]).shape == (0,)


def test_the_nearest_are_those_of_the_whole_table() -> None:
    rows = torch.nn.functional.normalize(torch.randn(50, 8), dim=1)
    products = rows @ rows.T
    products.fill_diagonal_(-2)
    expected = products.topk(5, dim=1)
    found = nearest(rows, 5, SearchOptions(), 0)
    assert torch.equal(found.indices, expected.indices)
    assert torch.allclose(found.scores, expected.values, atol=1e-6)
    assert nearest(rows[:3], 5, SearchOptions(), 0).scores.shape == (3, 2)


@settings(max_examples=30)
@given(
    place=st.floats(0.1, 0.8), width=st.floats(0.01, 0.1), share=st.floats(0, 0.4), seed=st.integers(0, 1000)
)
def test_the_end_of_the_bulk_is_beyond_it_and_duplicates_do_not_move_it_far(
    place: float, width: float, share: float, seed: int
) -> None:
    numbers = np.random.default_rng(seed)
    bulk = np.tanh(numbers.gumbel(place, width, 2000))
    end = bulk_end(bulk)
    assert (bulk > end).mean() < 0.002
    duplicates = int(2000 * share)
    moved = np.arctanh(bulk_end(np.concatenate([bulk[duplicates:], np.full(duplicates, 0.999)])))
    # Where 40 % are duplicates, the quantiles of the bulk move such that the end moves by 7.3 widths. The
    # sample adds up to two.
    assert np.arctanh(end) - 2 * width < moved < np.arctanh(end) + 9.5 * width

"""The largest inner products, against all of them computed and sorted."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ebsc_core.config import SearchOptions
from ebsc_core.search import ExactIndex, Found, chosen_method, exact
from ebsc_core.search.index import largest


def normal(n: int, width: int = 4, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def assert_found(found: Found, queries: Tensor, keys: Tensor, top_k: int, own: Tensor) -> None:
    """``found`` are the ``top_k`` largest, own ones excluded; among equal ones any."""
    scores = queries @ keys.T
    scores[own >= 0, own[own >= 0]] = -torch.inf
    width = min(top_k, len(keys))
    torch.testing.assert_close(found.scores[:, :width], scores.sort(dim=1, descending=True).values[:, :width])
    assert found.scores.shape == found.indices.shape == (len(queries), top_k)
    finite = found.scores > -torch.inf
    torch.testing.assert_close(scores.gather(1, found.indices)[finite], found.scores[finite])
    assert not bool(found.indices[~finite].any())
    for row, kept in zip(found.indices, finite, strict=True):
        assert len(set(row[kept].tolist())) == int(kept.sum())


@given(
    n=st.integers(1, 60),
    m=st.integers(1, 30),
    top_k=st.integers(1, 12),
    tile=st.integers(1, 70),
    block=st.integers(1, 40),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=60, deadline=None)
def test_tiles_find_what_is_found_without(
    n: int, m: int, top_k: int, tile: int, block: int, dtype: torch.dtype, seed: int
) -> None:
    keys, queries = normal(n, seed=seed, dtype=dtype), normal(m, seed=seed + 1, dtype=dtype)
    own = torch.randint(-1, n, (m,), generator=torch.Generator().manual_seed(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "TILE_KEYS", tile)
        index = ExactIndex(keys)
    index.block = block
    assert len(index) == n
    found = index.search(queries, top_k, own, normalise=True)
    assert_found(found, queries, keys, top_k, own)
    scores = queries @ keys.T
    scores[own >= 0, own[own >= 0]] = -torch.inf
    torch.testing.assert_close(found.normaliser, scores.logsumexp(dim=1, keepdim=True))


@given(n=st.integers(1, 400), top_k=st.integers(1, 9), seed=st.integers(0, 1000), few=st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_largest_are_those_of_topk(n: int, top_k: int, seed: int, few: bool) -> None:
    scores = normal(5, n, seed)
    if few:  # many equal ones, and infinite ones
        scores = scores.round()
        scores[scores < 0] = -torch.inf
    values, columns = largest(scores, top_k)
    assert torch.equal(values, scores.topk(min(top_k, n), dim=1).values)
    assert torch.equal(scores.gather(1, columns), values)
    assert all(len(set(row)) == len(row) for row in columns.tolist())


def test_products_are_exact_where_training_allows_itself_less() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        rows = torch.nn.functional.normalize(normal(300, 64), dim=1)
        found = ExactIndex(rows).search(rows, 5, torch.arange(300))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert_found(found, rows, rows, 5, torch.arange(300))


@pytest.mark.parametrize(
    ("rows", "dictionary", "chosen"),
    [(70_000, 70_000, "exact"), (80_000, 80_000, "cells"), (10**7, 200, "exact"), (10**6, 20_000, "cells")],
)
def test_the_search_is_exact_where_that_is_quick(rows: int, dictionary: int, chosen: str) -> None:
    assert chosen_method(SearchOptions(), rows, dictionary) == chosen
    assert chosen_method(SearchOptions(method="exact"), rows, dictionary) == "exact"
    assert chosen_method(SearchOptions(method="faiss"), 10, 10) == "faiss"

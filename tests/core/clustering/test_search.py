"""The largest inner products, against all of them computed and sorted."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ebsc_core.clustering.coefficients import Dictionary, self_expressive_coefficients
from ebsc_core.clustering.search import (
    CellIndex,
    ExactIndex,
    Found,
    build_index,
    centroids,
    chosen_method,
    exact,
    recall,
)
from ebsc_core.clustering.search import cells as cells_module
from ebsc_core.clustering.search.index import largest
from ebsc_core.config.schema import SearchOptions
from ebsc_plugins.coefficients.knn import CosineNeighbors, KnnOptions


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
    found = index.search(queries, top_k, own, normalize=True)
    assert_found(found, queries, keys, top_k, own)
    scores = queries @ keys.T
    scores[own >= 0, own[own >= 0]] = -torch.inf
    torch.testing.assert_close(found.normalizer, scores.logsumexp(dim=1, keepdim=True))


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
    ("rows", "dictionary", "width", "on_cpu", "chosen"),
    [
        (70_000, 70_000, 100, True, "exact"),
        (80_000, 80_000, 10, True, "cells"),
        (10**7, 200, 100, True, "exact"),
        (10**6, 20_000, 10, True, "cells"),
        (20_000, 20_000, 1000, True, "exact"),
        (30_000, 30_000, 1000, True, "cells"),
        (70_000, 70_000, 1000, False, "exact"),
        (80_000, 80_000, 10, False, "cells"),
    ],
)
def test_the_search_is_exact_where_that_is_quick(
    rows: int, dictionary: int, width: int, on_cpu: bool, chosen: str
) -> None:
    assert chosen_method(SearchOptions(), rows, dictionary, width, on_cpu) == chosen
    assert chosen_method(SearchOptions(method="exact"), rows, dictionary, width, on_cpu) == "exact"
    assert chosen_method(SearchOptions(method="faiss"), 10, 10, width, on_cpu) == "faiss"


@pytest.mark.parametrize(("width", "given", "probes"), [(512, None, 8), (513, None, 16), (513, 3, 3)])
def test_more_cells_are_searched_for_wide_rows(width: int, given: int | None, probes: int) -> None:
    options = SearchOptions(method="cells", probes=given, cell_rows=8)
    assert build_index(torch.randn(200, width), options, 200, 0).probes == probes


def near_subspaces(n: int, seed: int = 0) -> Tensor:
    """Unit-length rows near five subspaces of dimension 3 in 20."""
    generator = torch.Generator().manual_seed(seed)
    bases = torch.linalg.qr(torch.randn(5, 20, 3, generator=generator)).Q
    which = torch.randint(5, (n,), generator=generator)
    rows = (bases[which] @ torch.randn(n, 3, 1, generator=generator)).squeeze(2)
    rows = torch.nn.functional.normalize(rows, dim=1)
    return torch.nn.functional.normalize(rows + 0.01 * torch.randn(n, 20, generator=generator), dim=1)


@given(
    n=st.integers(1, 80),
    m=st.integers(1, 30),
    cells=st.integers(1, 60),
    top_k=st.integers(1, 12),
    slab=st.integers(1, 2000),
    met=st.sampled_from([32, 1024]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=80, deadline=None)
def test_looking_into_every_cell_is_exact(
    n: int, m: int, cells: int, top_k: int, slab: int, met: int, seed: int
) -> None:
    keys, queries = normal(n, seed=seed), normal(m, seed=seed + 1)
    own = torch.randint(-1, n, (m,), generator=torch.Generator().manual_seed(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(centroids, "MAX_MET", met)
        patch.setattr(centroids, "AROUND", 100)
        patch.setattr(centroids, "tile_scores", lambda device: slab)
        patch.setattr(cells_module, "tile_scores", lambda device: slab)
        index = CellIndex(keys, min(cells, n), n, seed)
        found = index.search(queries, top_k, own, normalize=True)
    assert len(index) == n
    assert sorted(index.order.tolist()) == list(range(n))
    assert_found(found, queries, keys, top_k, own)
    torch.testing.assert_close(found.normalizer, found.scores.logsumexp(dim=1, keepdim=True))
    assert recall(index, queries, top_k, own) == 1 or n == 1


@pytest.mark.parametrize("met", [32, 1024])
def test_the_nearest_cells_hold_nearly_all(met: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(centroids, "MAX_MET", met)
    rows, own = near_subspaces(5000), torch.arange(5000)
    index = CellIndex(rows, 5000 // 64, 8, 0)
    assert recall(index, rows, 10, own) > 0.95
    found = index.search(rows, 10, own)
    assert not bool((found.indices == own.unsqueeze(1)).any())
    torch.testing.assert_close((rows.unsqueeze(1) * rows[found.indices]).sum(dim=2), found.scores)
    assert recall(CellIndex(rows, 5000 // 64, 1, 0), rows, 10, own) < 0.9  # or nothing was measured


def test_a_seed_decides_the_cells_and_blocks_of_queries_change_nothing() -> None:
    rows, own = near_subspaces(2000), torch.arange(2000)
    index = CellIndex(rows, 40, 4, 3)
    whole = index.search(rows, 5, own)
    again = CellIndex(rows, 40, 4, 3).search(rows, 5, own)
    assert torch.equal(whole.indices, again.indices)
    parts = [index.search(rows[part], 5, own[part]) for part in own.split(300)]
    torch.testing.assert_close(torch.cat([part.scores for part in parts]), whole.scores)


def test_many_rows_that_are_the_same_are_searched_in_pieces() -> None:
    """In one cell, each of them would meet all the others."""
    rows = torch.cat([normal(1, 20).expand(3000, -1), normal(1000, 20, seed=1)])
    index = CellIndex(rows, 4000 // 50, 4, 0)
    assert int(index.sizes.max()) <= index.width < 150
    own = torch.arange(4000)
    found = index.search(rows, 5, own)
    assert not bool((found.indices == own.unsqueeze(1)).any())
    itself = rows.square().sum(dim=1, keepdim=True).expand(-1, 5)
    torch.testing.assert_close(found.scores[:3000], itself[:3000])


def test_what_a_row_meets_does_not_grow_with_the_rows() -> None:
    def keys_met(n: int) -> float:
        rows = near_subspaces(n)
        index = CellIndex(rows, n // 64, 4, 0)
        return float(index.sizes[index.centroids.nearest(rows)].sum()) / n

    def centroids_met(n: int) -> int:
        of = centroids.Centroids(near_subspaces(n), 8, 0)
        return len(of.groups) + of.around.shape[1]

    assert keys_met(16_000) <= 1.2 * keys_met(4_000)
    assert centroids_met(4_400) <= 2.1 * centroids_met(1_100)  # four times as many


def test_a_dictionary_is_searched_as_it_is_told() -> None:
    rows = near_subspaces(3000)
    model = CosineNeighbors(KnnOptions(weighted=True), 20)
    exactly = self_expressive_coefficients(model, rows, 6)
    told = Dictionary(model, rows, search=SearchOptions(method="cells", cell_rows=64, probes=6))
    found = told.express(rows, 6, torch.arange(3000), block=700)
    assert told.method == "cells"
    assert told.recall is not None
    same = float(torch.isclose(found.values, exactly.values, atol=1e-5).float().mean())
    assert same == pytest.approx(told.recall, abs=0.05)
    assert 0.9 < same < 1
    assert told.order is not None
    plain = Dictionary(model, rows)
    plain.express(rows[:10], 6, torch.arange(10))
    assert (plain.method, plain.recall, plain.order) == ("exact", None, None)


def test_coefficients_of_what_was_not_found_are_zero() -> None:
    rows = normal(3, 5).abs()  # all related
    options = SearchOptions(method="cells", cell_rows=8)
    found = Dictionary(CosineNeighbors(KnnOptions(), 5), rows, search=options).express(
        rows, 4, torch.arange(3)
    )
    assert found.values.tolist() == [[1, 1, 0, 0]] * 3


def test_faiss_finds_the_same() -> None:
    pytest.importorskip("faiss")
    rows, own = near_subspaces(3000), torch.arange(3000)
    own[::7] = -1
    index = build_index(rows, SearchOptions(method="faiss", cell_rows=64, probes=1000), 3000, 0)
    found = index.search(rows, 10, own, normalize=True)
    assert_found(found, rows, rows, 10, own)
    torch.testing.assert_close(found.normalizer, found.scores.logsumexp(dim=1, keepdim=True))
    assert recall(index, rows, 10, own) == 1
    few = build_index(rows, SearchOptions(method="faiss", cell_rows=64, probes=4), 3000, 0)
    assert 0.8 < recall(few, rows, 10, own) < 1


def test_faiss_says_where_it_found_fewer(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("faiss")
    rows = normal(3, 5)
    index = build_index(rows, SearchOptions(method="faiss", cell_rows=8), 3, 0)
    assert_found(index.search(rows, 5, torch.arange(3)), rows, rows, 5, torch.arange(3))
    assert capfd.readouterr() == ("", "")

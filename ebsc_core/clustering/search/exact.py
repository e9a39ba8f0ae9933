"""Compare every query with every key, in tiles that fit in the processor's cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from ebsc_core.clustering.search.index import Found, Index, largest, tile_scores
from ebsc_core.utils.matmul import PackedRows, full_precision

TILE_KEYS = 16_384


class ExactIndex(Index):
    """Search exactly; the time grows with the number of queries times the number of keys."""

    method = "exact"

    def __init__(self, keys: Tensor) -> None:
        self.size = len(keys)
        self.tiles = list(packed_tiles(keys))
        self.block = tile_scores(keys.device) // min(TILE_KEYS, len(keys))

    def __len__(self) -> int:
        return self.size

    @torch.no_grad()
    def search(self, queries: Tensor, top_k: int, own: Tensor, normalize: bool = False) -> Found:
        scores, indices = queries.new_empty(len(queries), top_k), own.new_empty(len(queries), top_k)
        normalizer = queries.new_empty(len(queries), 1)
        for start in range(0, len(queries), self.block):
            part = slice(start, start + self.block)
            found = exhaustive(queries[part], self.tiles, top_k, own[part], normalize)
            scores[part], indices[part], normalizer[part] = found.scores, found.indices, found.normalizer
        return Found(scores, indices, normalizer)

    def exhaustive(self, queries: Tensor, top_k: int, own: Tensor) -> Found:
        return self.search(queries, top_k, own)


def packed_tiles(keys: Tensor) -> Iterator[PackedRows]:
    """Split keys into tiles; each tile is packed when it is needed."""
    return (PackedRows(tile) for tile in keys.split(TILE_KEYS))


def exhaustive(
    queries: Tensor, tiles: Iterable[PackedRows], top_k: int, own: Tensor, normalize: bool = False
) -> Found:
    """Find the largest inner products of one block of queries with the keys of all tiles."""
    values, indices = queries.new_empty(len(queries), 0), own.new_empty(len(queries), 0)
    normalizer = queries.new_full((len(queries), 1), -torch.inf if normalize else 0)
    start = 0
    for tile in tiles:
        with full_precision():
            scores = tile.products(queries)
        here = ((own >= start) & (own < start + len(tile))).nonzero().squeeze(1)
        scores[here, own[here] - start] = -torch.inf
        if normalize:
            normalizer = torch.logaddexp(normalizer, scores.logsumexp(dim=1, keepdim=True))
        top, columns = largest(scores, top_k)
        values, indices = torch.cat([values, top], dim=1), torch.cat([indices, columns + start], dim=1)
        values, best = values.topk(min(top_k, values.shape[1]), dim=1)
        indices = indices.gather(1, best)
        start += len(tile)
    missing = top_k - values.shape[1]
    values, indices = pad(values, (0, missing), value=-torch.inf), pad(indices, (0, missing))
    return Found(values, indices.masked_fill(values == -torch.inf, 0), normalizer)

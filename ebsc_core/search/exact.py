"""Every query meets every key, in tiles that stay in the processor's cache."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ebsc_core.products import PackedRows, full_precision
from ebsc_core.search.index import Found, Index, found_of, largest

TILE_KEYS = 16_384
# A tile's scores: 2^22 float32 are 16 MiB. With 128 MiB, products took 2.5 times as long on an AMD processor
# (the memory, not the arithmetic); a GPU wants more at once.
TILE_SCORES = {"cpu": 1 << 22, "cuda": 1 << 27, "mps": 1 << 25}


class ExactIndex(Index):
    """The exact search; its time grows with queries times keys."""

    def __init__(self, keys: Tensor) -> None:
        self.size = len(keys)
        self.tiles = [PackedRows(tile) for tile in keys.split(TILE_KEYS)]
        self.block = max(256, tile_scores(keys.device) // min(TILE_KEYS, max(1, len(keys))))

    def __len__(self) -> int:
        return self.size

    @torch.no_grad()
    def search(self, queries: Tensor, top_k: int, own: Tensor, normalise: bool = False) -> Found:
        blocks = zip(queries.split(self.block), own.split(self.block), strict=True)
        parts = [exhaustive(q, self.tiles, top_k, o, normalise) for q, o in blocks]
        return Found(
            torch.cat([part.scores for part in parts]),
            torch.cat([part.indices for part in parts]),
            torch.cat([part.normaliser for part in parts]),
        )


def tile_scores(device: torch.device) -> int:
    """How many scores are held at once on a device."""
    return TILE_SCORES.get(device.type, 1 << 25)


def exhaustive(
    queries: Tensor, tiles: Iterable[PackedRows], top_k: int, own: Tensor, normalise: bool = False
) -> Found:
    """The largest inner products of one block of queries with the keys of all tiles."""
    values, indices = queries.new_empty(len(queries), 0), own.new_empty(len(queries), 0)
    normaliser = queries.new_full((len(queries), 1), -torch.inf if normalise else 0)
    start = 0
    for tile in tiles:
        with full_precision():
            scores = tile.products(queries)
        here = ((own >= start) & (own < start + len(tile))).nonzero().squeeze(1)
        scores[here, own[here] - start] = -torch.inf
        if normalise:
            normaliser = torch.logaddexp(normaliser, scores.logsumexp(dim=1, keepdim=True))
        top, columns = largest(scores, top_k)
        values, indices = torch.cat([values, top], dim=1), torch.cat([indices, columns + start], dim=1)
        values, best = values.topk(min(top_k, values.shape[1]), dim=1)
        indices = indices.gather(1, best)
        start += len(tile)
    return found_of(values, indices, top_k, normaliser)

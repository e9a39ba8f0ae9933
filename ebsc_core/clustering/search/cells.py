"""Compare each query with the keys of its nearest cells only, so that time grows more slowly than N².

This is an inverted file (Sivic and Zisserman, ICCV 2003; Jégou, Douze and Schmid, PAMI 2011) made of dense
products: neighbouring queries look into the same cells, and a cell answers all of them with one product.
"""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor

from ebsc_core.clustering.search.centroids import Centroids, k_means
from ebsc_core.clustering.search.exact import exhaustive, packed_tiles
from ebsc_core.clustering.search.index import GROUP, Found, Index, largest, tile_scores
from ebsc_core.utils.matmul import full_precision

# A cell holds at most this many times the mean number of keys. A larger one is split into cells with the
# same centroid.
WIDEST = 2


class CellIndex(Index):
    """Sort keys ``(N, D)`` into about ``cells`` cells; each query looks into ``probes`` of them."""

    method = "cells"
    order: Tensor

    @torch.no_grad()
    def __init__(self, keys: Tensor, cells: int, probes: int, seed: int) -> None:
        self.probes, self.width = probes, GROUP * ceil(WIDEST * len(keys) / cells / GROUP)
        with full_precision():
            means = k_means(keys, cells, seed)
            centroids = Centroids(means, 1, seed)
            by_group = centroids.group.argsort(stable=True)  # places near cells side by side
            cell = by_group.argsort()[centroids.nearest(keys).squeeze(1)]
            counts = cell.bincount(minlength=cells)
            pieces = (counts + self.width - 1) // self.width  # an empty cell has none
            self.centroids = Centroids(means[by_group].repeat_interleave(pieces, dim=0), probes, seed)
        self.order = cell.argsort(stable=True)
        self.keys = keys[self.order]
        self.position = self.order.argsort()
        self.sizes = _even(counts, pieces)
        self.starts = self.sizes.cumsum(0) - self.sizes
        self.cell = torch.arange(len(self.sizes), device=keys.device).repeat_interleave(self.sizes)
        self.tiles = self.keys.split(self.sizes.tolist())

    def __len__(self) -> int:
        return len(self.keys)

    @torch.no_grad()
    def search(self, queries: Tensor, top_k: int, own: Tensor, normalize: bool = False) -> Found:
        scores = queries.new_full((len(queries), top_k), -torch.inf)
        indices = own.new_zeros(len(queries), top_k)
        own = torch.where(own >= 0, self.position[own], -1)
        with full_precision():
            cells = self.centroids.nearest(queries)
            slab = max(1, tile_scores(queries.device) // (cells.shape[1] * self.width))
            held = queries.new_empty(min(slab, len(queries)) * cells.shape[1], self.width)
            for part in cells[:, 0].argsort(stable=True).split(slab):
                values, positions = self._search(queries[part], cells[part], top_k, own[part], held)
                scores[part, : values.shape[1]] = values
                indices[part, : values.shape[1]] = self.order[positions]
        indices.masked_fill_(scores == -torch.inf, 0)
        normalizer = scores.logsumexp(dim=1, keepdim=True) if normalize else torch.zeros_like(scores[:, :1])
        return Found(scores, indices, normalizer)

    def exhaustive(self, queries: Tensor, top_k: int, own: Tensor) -> Found:
        own = torch.where(own >= 0, self.position[own], -1)
        return exhaustive(queries, packed_tiles(self.keys), top_k, own)

    def visits(self, own: Tensor) -> Tensor:
        return torch.where(own >= 0, self.position[own], len(self)).argsort(stable=True)

    def _search(
        self, queries: Tensor, cells: Tensor, top_k: int, own: Tensor, held: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Search the cells ``(B, probes)`` of each query; return at most ``top_k`` scores and positions.

        All positions, including ``own``, refer to the keys in the order of the cells.
        """
        scores = held[: cells.numel()]
        slots = self._score(queries, cells, scores)
        mine = (cells == self.cell[own].unsqueeze(1)) & (own >= 0).unsqueeze(1)
        query, probe = mine.nonzero(as_tuple=True)
        scores[slots[query, probe], own[query] - self.starts[cells[query, probe]]] = -torch.inf
        # This works like `largest`, but the scores of a query are spread over several rows.
        groups = self.width // GROUP
        grouped = scores.view(-1, GROUP, groups)
        _, chosen = largest(grouped.amax(dim=1)[slots].flatten(1), top_k)
        probe, group = chosen // groups, chosen % groups
        values, best = largest(grouped[slots.gather(1, probe), :, group].flatten(1), top_k)
        probe, group = probe.gather(1, best // GROUP), group.gather(1, best // GROUP)
        positions = self.starts[cells.gather(1, probe)] + best % GROUP * groups + group
        return values, positions.masked_fill(values == -torch.inf, 0)

    def _score(self, queries: Tensor, cells: Tensor, scores: Tensor) -> Tensor:
        """Compute inner products of each query with the keys of its cells; fill up with ``-inf``.

        Each row of ``scores`` gets the products of one query with one cell. The function returns the row
        numbers ``(B, probes)``.
        """
        by_cell = cells.flatten().argsort(stable=True)
        touched, counts = cells.flatten()[by_cell].unique_consecutive(return_counts=True)
        asking = (by_cell // cells.shape[1]).split(counts.tolist())
        start = 0
        for cell, query in zip(touched.tolist(), asking, strict=True):
            keys, answers = self.tiles[cell], scores[start : start + len(query)]
            torch.mm(queries[query], keys.T, out=answers[:, : len(keys)])
            answers[:, len(keys) :] = -torch.inf
            start += len(query)
        return by_cell.argsort().view_as(cells)


def _even(counts: Tensor, pieces: Tensor) -> Tensor:
    """Compute the sizes of the pieces of each cell, as equal as possible."""
    cell = torch.arange(len(counts), device=counts.device).repeat_interleave(pieces)
    piece = torch.arange(len(cell), device=counts.device) - (pieces.cumsum(0) - pieces)[cell]
    return counts[cell] // pieces[cell] + (piece < counts[cell] % pieces[cell])

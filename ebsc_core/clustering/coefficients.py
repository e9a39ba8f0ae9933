"""From a dictionary to sparse self-expressive coefficients.

Nothing here is N×N: queries go through in blocks, and what remains of each is ``top_k`` entries.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import log2

import torch
from torch import Tensor

from ebsc_core.clustering.inner_product import InnerProductModel
from ebsc_core.clustering.search import Index, build_index, chosen_method, recall
from ebsc_core.config.schema import SearchOptions
from ebsc_core.plugins.interfaces import CoefficientModel, Coefficients
from ebsc_core.utils.matmul import full_precision
from ebsc_core.utils.sampling import sample_positions

# Scores held at once: 2^25 float32 are 128 MiB, enough to keep a matmul busy.
BLOCK_SCORES = 1 << 25
# Queries that go to an index at once: it blocks them itself, but activations of a network are held for them.
QUERY_ROWS = 65_536
# Queries that are also searched exactly where the search is not: the recall is then known within some 1 %.
RECALL_ROWS = 256


def auto_top_k(n_rows: int, n_clusters: int) -> int:
    """How many coefficients a row keeps when nobody says: ``log2`` of the mean cluster size.

    Between 5 and 10, where there are as many other rows. Few for small clusters, whose rows soon run out of
    true neighbours; ``log n`` neighbours a node is the usual condition for a graph of n nodes to stay in one
    piece (von Luxburg, "A tutorial on spectral clustering", 2007, §8.1). No label enters.
    """
    wanted = round(log2(max(n_rows / n_clusters, 1)))
    return max(1, min(max(5, min(wanted, 10)), n_rows - 1))


class Dictionary:
    """Rows to express others by, made ready for the queries of a model, which come in any number of blocks.

    Where coefficients are a function of inner products (:class:`InnerProductModel`), those are searched.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: CoefficientModel,
        rows: Tensor,
        n_queries: int | None = None,
        search: SearchOptions | None = None,
        seed: int = 0,
    ) -> None:
        """Rows ``(N, D)`` of unit length; ``n_queries`` are to come in all, N if not given."""
        self.model, self.seed = model, seed
        self.method = "exact"
        """How coefficients are searched: ``exact``, ``cells`` or ``faiss``."""
        self.recall: float | None = None
        """Share of the largest inner products that the search finds, measured on some of the first queries;
        None if it is exact."""
        search, n_queries = search or SearchOptions(), n_queries or len(rows)
        if isinstance(model, InnerProductModel):
            self.method = chosen_method(search, n_queries, len(rows))
            self.encoded = build_index(model.all_keys(rows), search, n_queries, seed)
            self.block = QUERY_ROWS
        else:
            with full_precision():
                self.encoded = model.encode(rows)
            self.block = max(16, min(4096, BLOCK_SCORES // len(rows)))

    @property
    def order(self) -> Tensor | None:
        """``(N,)`` int64, positions of the rows such that near ones are side by side, if that is known."""
        return self.encoded.order if isinstance(self.encoded, Index) else None

    @torch.no_grad()
    def express(self, rows: Tensor, top_k: int, own: Tensor, block: int | None = None) -> Coefficients:
        """The coefficients of :func:`expressed`."""
        if self.method != "exact" and self.recall is None:
            self.recall = self._measured(rows, top_k, own)
        indices = torch.empty(len(rows), top_k, dtype=torch.int64)
        values = torch.empty(len(rows), top_k)
        for part in self._blocks(own, block or self.block):
            with full_precision():
                found = self.model.coefficients(rows[part], self.encoded, top_k, own[part])
            at = part if isinstance(part, slice) else part.cpu()
            indices[at], values[at] = found.indices.cpu(), found.values.float().cpu()
        return Coefficients(indices, values)

    def _blocks(self, own: Tensor, size: int) -> Iterable[Tensor | slice]:
        """Queries at once; those that look into the same cells together."""
        if self.order is not None:
            return self.encoded.visits(own).split(size)
        return (slice(start, start + size) for start in range(0, len(own), size))

    def _measured(self, rows: Tensor, top_k: int, own: Tensor) -> float | None:
        if not isinstance(self.model, InnerProductModel) or not len(rows):
            return None
        some = torch.from_numpy(sample_positions(len(rows), RECALL_ROWS, self.seed)).to(rows.device)
        return recall(self.encoded, self.model.queries(rows[some]), top_k, own[some])


def self_expressive_coefficients(
    model: CoefficientModel, rows: Tensor, top_k: int, block: int | None = None
) -> Coefficients:
    """Coefficients of every row over all the others: :func:`expressed` with the rows as their dictionary."""
    return expressed(model, rows, rows, top_k, torch.arange(len(rows), device=rows.device), block)


def expressed(
    model: CoefficientModel,
    rows: Tensor,
    dictionary: Tensor,
    top_k: int,
    own: Tensor,
    block: int | None = None,
) -> Coefficients:
    """Coefficients of rows over a dictionary.

    Parameters
    ----------
    model : CoefficientModel
    rows : Tensor of shape (M, D)
        Unit-length rows, on the device to compute on.
    dictionary : Tensor of shape (N, D)
        Unit-length rows, on the same device.
    top_k : int
        Coefficients kept per row, at most ``N``, or ``N - 1`` for a row that is in the dictionary.
    own : Tensor of shape (M,)
        Position of each row in the dictionary, -1 where it is not there.
    block : int, optional
        Rows at once; chosen from N if not given. The result does not depend on it.

    Returns
    -------
    Coefficients on the CPU, of shape (M, top_k).
    """
    return Dictionary(model, dictionary, len(rows)).express(rows, top_k, own, block)


def exclude_own(scores: Tensor, own: Tensor, value: float = -torch.inf) -> None:
    """Set each query's own entry to ``value`` in place, by index (a duplicate of it stays).

    A query that has none (-1) writes its first entry back: to leave it out would take knowing on the host how
    many there are, for which a GPU would be waited for.
    """
    at = torch.arange(len(own), device=own.device), own.clamp_min(0)
    scores[at] = scores[at].masked_fill(own >= 0, value)

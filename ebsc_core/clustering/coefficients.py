"""Compute sparse self-expressive coefficients over a dictionary.

No N×N matrix is ever built: queries are processed in blocks, and each query keeps ``top_k`` entries.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import log2

import torch
from torch import Tensor

from ebsc_core.clustering.inner_product import InnerProductModel
from ebsc_core.clustering.returned import checked_coefficients
from ebsc_core.clustering.search import Index, build_index, recall
from ebsc_core.config.schema import SearchOptions
from ebsc_core.plugins.interfaces import CoefficientModel, Coefficients
from ebsc_core.utils.matmul import full_precision
from ebsc_core.utils.sampling import sample_positions

# Number of scores held at once: 2^25 float32 are 128 MiB, enough to keep a matmul busy.
BLOCK_SCORES = 1 << 25
# Number of queries passed to an index at once. The index splits them itself, but the activations of a
# network are held for all of them.
QUERY_ROWS = 65_536
# Number of queries that an approximate search also searches exactly: this measures the recall to some 1 %.
RECALL_ROWS = 256

# The number of coefficients is needed before ``n_clusters="auto"`` is known.
EXPECTED_CLUSTERS = 10


def auto_top_k(n_rows: int, n_clusters: int | None) -> int:
    """Return the default number of coefficients for each row: ``log2`` of the mean cluster size.

    Ten clusters are expected where their number is not known.

    The result is between 5 and 10, but at most half of the other rows: a graph of all pairs says nothing. It
    is small for small clusters, because their rows soon run out of true neighbours. About ``log n``
    neighbours per node are the usual condition for a graph of n nodes to be connected (von Luxburg, "A
    tutorial on spectral clustering", 2007, §8.1). No label enters.
    """
    wanted = round(log2(max(n_rows / (n_clusters or EXPECTED_CLUSTERS), 1)))
    return max(1, min(max(5, min(wanted, 10)), (n_rows - 1) // 2))


class Dictionary:
    """Hold the rows that express others, prepared for the queries of one model.

    Queries may come in any number of blocks. If the coefficients depend on inner products only
    (:class:`InnerProductModel`), an index searches for the largest ones.
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
        """Prepare unit-length rows ``(N, D)`` for ``n_queries`` queries in total (N if not given)."""
        self.model, self.seed, (self.size, self.width) = model, seed, rows.shape
        self.recall: float | None = None
        """The share of the largest inner products that the search finds, measured on some of the first
        queries; None if the search is exact."""
        search = search or SearchOptions()
        with full_precision():
            if isinstance(model, InnerProductModel):
                self.encoded = build_index(model.all_keys(rows), search, n_queries or len(rows), seed)
                self.block = QUERY_ROWS
            else:
                self.encoded = model.encode(rows)
                self.block = max(16, min(4096, BLOCK_SCORES // len(rows)))

    @property
    def method(self) -> str:
        """The search method: ``exact``, ``cells`` or ``faiss``."""
        return self.encoded.method if isinstance(self.encoded, Index) else "exact"

    @property
    def probes(self) -> int:
        """The number of cells that are searched for each row; 0 if all rows are compared."""
        return self.encoded.probes if isinstance(self.encoded, Index) else 0

    @property
    def order(self) -> Tensor | None:
        """Row positions, ``(N,)`` int64, sorted so that near rows are side by side; None if unknown."""
        return self.encoded.order if isinstance(self.encoded, Index) else None

    @torch.no_grad()
    def express(self, rows: Tensor, top_k: int, own: Tensor, block: int | None = None) -> Coefficients:
        """Compute coefficients of rows; the parameters are those of :func:`expressed`.

        Raises
        ------
        ComponentError
            If the model returns something else than coefficients of this shape over the dictionary.
        """
        if self.method != "exact" and self.recall is None:
            self.recall = self._measured(rows, top_k, own)
        indices = torch.empty(len(rows), top_k, dtype=torch.int64)
        values = torch.empty(len(rows), top_k)
        for part in self._blocks(own, block or self.block):
            with full_precision():
                found = self.model.coefficients(rows[part], self.encoded, top_k, own[part])
            at = part if isinstance(part, slice) else part.cpu()
            shape = len(own[part]), top_k
            indices[at], values[at] = checked_coefficients(found, self.model, shape, self.size)
        return Coefficients(indices, values)

    def _blocks(self, own: Tensor, size: int) -> Iterable[Tensor | slice]:
        """Split queries into blocks; queries that look into the same cells are in the same block."""
        if self.order is not None:
            return self.encoded.visits(own).split(size)
        return (slice(start, start + size) for start in range(0, len(own), size))

    def _measured(self, rows: Tensor, top_k: int, own: Tensor) -> float | None:
        if not isinstance(self.model, InnerProductModel) or not len(rows):
            return None
        some = torch.from_numpy(sample_positions(len(rows), RECALL_ROWS, self.seed)).to(rows.device)
        with full_precision():
            return recall(self.encoded, self.model.queries(rows[some]), top_k, own[some])


def self_expressive_coefficients(
    model: CoefficientModel, rows: Tensor, top_k: int, block: int | None = None
) -> Coefficients:
    """Compute the coefficients of every row over all others: :func:`expressed` with one set of rows."""
    return expressed(model, rows, rows, top_k, torch.arange(len(rows), device=rows.device), block)


def expressed(
    model: CoefficientModel,
    rows: Tensor,
    dictionary: Tensor,
    top_k: int,
    own: Tensor,
    block: int | None = None,
) -> Coefficients:
    """Compute coefficients of rows over a dictionary.

    Parameters
    ----------
    model : CoefficientModel
    rows : Tensor of shape (M, D)
        Unit-length rows, on the device to compute on.
    dictionary : Tensor of shape (N, D)
        Unit-length rows, on the same device.
    top_k : int
        Number of coefficients kept per row, at most ``N``, or ``N - 1`` for a row that is in the
        dictionary.
    own : Tensor of shape (M,)
        Position of each row in the dictionary, or -1 if it is not there.
    block : int, optional
        Number of rows processed at once; by default it depends on N. The result does not depend on it.

    Returns
    -------
    Coefficients
        On the CPU, of shape (M, top_k).
    """
    return Dictionary(model, dictionary, len(rows)).express(rows, top_k, own, block)


def exclude_own(scores: Tensor, own: Tensor, value: float = -torch.inf) -> None:
    """Set each query's own entry to ``value``, in place, by index (a duplicate of the entry stays).

    A query without an own entry (-1) writes its first entry back. To leave such queries out, the host would
    have to know how many there are, and would have to wait for the GPU.
    """
    at = torch.arange(len(own), device=own.device), own.clamp_min(0)
    scores[at] = scores[at].masked_fill(own >= 0, value)

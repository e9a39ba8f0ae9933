"""Find the largest inner products of queries with the rows of a dictionary, exactly or among near rows."""

from __future__ import annotations

from torch import Tensor

from ebsc_core.clustering.search.cells import CellIndex
from ebsc_core.clustering.search.exact import ExactIndex
from ebsc_core.clustering.search.faiss import FaissIndex
from ebsc_core.clustering.search.index import Found, Index, recall
from ebsc_core.config.schema import SearchOptions

__all__ = [
    "CellIndex",
    "ExactIndex",
    "FaissIndex",
    "Found",
    "Index",
    "build_index",
    "chosen_method",
    "recall",
]

# Up to this many inner products (70,000 rows over each other) the search is exact.
MAX_EXACT = 5_000_000_000


def chosen_method(options: SearchOptions, n_queries: int, n_keys: int) -> str:
    """Return ``exact``, ``cells`` or ``faiss``: the requested method, or the one that suits these sizes."""
    if options.method != "auto":
        return options.method
    return "exact" if n_queries * n_keys <= MAX_EXACT else "cells"


def build_index(keys: Tensor, options: SearchOptions, n_queries: int, seed: int) -> Index:
    """Build an index over keys ``(N, D)`` with the requested method, or one that suits ``n_queries``."""
    method = chosen_method(options, n_queries, len(keys))
    if method == "exact":
        return ExactIndex(keys)
    cells = max(1, len(keys) // options.cell_rows)
    if method == "cells":
        return CellIndex(keys, cells, options.probes, seed)
    return FaissIndex(keys, cells, options.probes, seed)

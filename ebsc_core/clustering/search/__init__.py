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

# Up to this many inner products (70,000 rows over each other) the search is exact; on a CPU, only if they
# also take at most so many multiplications, some 20 s of one core.
MAX_EXACT, MAX_MULTIPLICATIONS = 5_000_000_000, 500_000_000_000
# Cells of wider rows overlap more, so that twice as many are searched.
WIDE, PROBES, PROBES_OF_WIDE = 512, 8, 16


def chosen_method(options: SearchOptions, n_queries: int, n_keys: int, width: int, on_cpu: bool) -> str:
    """Return ``exact``, ``cells`` or ``faiss``: the requested method, or the one that suits these sizes.

    Parameters
    ----------
    n_queries, n_keys, width : int
        The numbers of queries and of keys, and of columns of both.
    on_cpu : bool
        Whether a CPU computes, for which products of wide rows take long.
    """
    if options.method != "auto":
        return options.method
    pairs = n_queries * n_keys
    few = pairs <= MAX_EXACT and not (on_cpu and pairs * width > MAX_MULTIPLICATIONS)
    return "exact" if few else "cells"


def build_index(keys: Tensor, options: SearchOptions, n_queries: int, seed: int) -> Index:
    """Build an index over keys ``(N, D)`` with the requested method, or one that suits ``n_queries``."""
    n_keys, width = keys.shape
    method = chosen_method(options, n_queries, n_keys, width, keys.device.type == "cpu")
    if method == "exact":
        return ExactIndex(keys)
    cells = max(1, n_keys // options.cell_rows)
    probes = options.probes or (PROBES_OF_WIDE if width > WIDE else PROBES)
    if method == "cells":
        return CellIndex(keys, cells, probes, seed)
    return FaissIndex(keys, cells, probes, seed)

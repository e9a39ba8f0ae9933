"""Define coefficient models that depend on inner products only, so that the framework can do the search."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from ebsc_core.clustering.returned import checked_map
from ebsc_core.clustering.search import ExactIndex, Index
from ebsc_core.plugins.interfaces import CoefficientModel, Coefficients

KEY_ROWS = 65_536


class InnerProductModel(CoefficientModel):
    """Compute coefficients from the largest inner products of a query with keys.

    Derive from this class if nothing else decides the coefficients. The framework then searches for the
    largest inner products (:mod:`ebsc_core.clustering.search`), exactly or among nearby rows only. In the
    latter case the normaliser covers only the rows that were found. This changes a whole row of
    coefficients by one factor, which affects neither the affinity nor a vote.
    """

    normalised: ClassVar[bool] = False
    """Whether :meth:`weigh` uses the normaliser. It takes time to compute."""

    @abstractmethod
    def queries(self, rows: Tensor) -> Tensor:
        """Map rows ``(B, D)`` to queries ``(B, D')`` of any length; keys are compared with them."""

    @abstractmethod
    def keys(self, rows: Tensor) -> Tensor:
        """Map rows ``(B, D)`` of the dictionary to keys ``(B, D')``."""

    @abstractmethod
    def weigh(self, scores: Tensor, normaliser: Tensor) -> Tensor:
        """Turn the largest inner products ``(B, k)`` into coefficients ``(B, k)``.

        ``normaliser`` ``(B, 1)`` is the log-sum-exp of a query's inner products if :attr:`normalised` is
        true.
        """

    def all_keys(self, rows: Tensor) -> Tensor:
        """Apply :meth:`keys` to any number of rows in blocks, to bound the memory for activations."""
        parts = rows.split(KEY_ROWS)
        return torch.cat([checked_map(self.keys(part), self, "keys", (len(part), None)) for part in parts])

    def encode(self, dictionary: Tensor) -> Index:
        return ExactIndex(self.all_keys(dictionary))

    def coefficients(self, queries: Tensor, encoded: Index, top_k: int, own: Tensor) -> Coefficients:
        searched = checked_map(self.queries(queries), self, "queries", (len(queries), None))
        largest = encoded.search(searched, top_k, own, self.normalised)
        rows, kept = largest.scores.shape
        values = checked_map(self.weigh(largest.scores, largest.normalizer), self, "weigh", (rows, kept))
        return Coefficients(largest.indices, values.masked_fill(largest.scores == -torch.inf, 0))

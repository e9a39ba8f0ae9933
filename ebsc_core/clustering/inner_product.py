"""Coefficient models that look at inner products alone, which the framework can therefore search."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from ebsc_core.clustering.search import ExactIndex, Index
from ebsc_core.plugins.interfaces import CoefficientModel, Coefficients

KEY_ROWS = 65_536


class InnerProductModel(CoefficientModel):
    """A model whose coefficients are a function of the largest inner products of a query with keys.

    That is all the framework needs to search them (:mod:`ebsc_core.clustering.search`), exactly or among
    nearby rows only. In the latter case the normaliser is that of the rows found: one factor for a whole row
    of coefficients, which neither the affinity nor a vote notices.
    """

    normalised: ClassVar[bool] = False
    """Whether :meth:`weigh` uses the normaliser, which costs time to compute."""

    @abstractmethod
    def queries(self, rows: Tensor) -> Tensor:
        """What rows ``(B, D)`` ask with, ``(B, D')``; of any length."""

    @abstractmethod
    def keys(self, rows: Tensor) -> Tensor:
        """What rows ``(B, D)`` answer to, ``(B, D')``."""

    @abstractmethod
    def weigh(self, scores: Tensor, normaliser: Tensor) -> Tensor:
        """Coefficients ``(B, k)`` of the largest inner products ``(B, k)``.

        ``normaliser`` ``(B, 1)`` is the log-sum-exp of a query's inner products, if :attr:`normalised`.
        """

    def all_keys(self, rows: Tensor) -> Tensor:
        """:meth:`keys` of any number of rows, never with a network's activations for all of them."""
        return torch.cat([self.keys(part) for part in rows.split(KEY_ROWS)])

    def encode(self, dictionary: Tensor) -> Index:
        return ExactIndex(self.all_keys(dictionary))

    def coefficients(self, queries: Tensor, encoded: Index, top_k: int, own: Tensor) -> Coefficients:
        found = encoded.search(self.queries(queries), top_k, own, self.normalised)
        values = self.weigh(found.scores, found.normalizer)
        return Coefficients(found.indices, values.masked_fill(found.scores == -torch.inf, 0))

"""Cosine neighbours: the energy network's starting point, and the rival it is judged by."""

from __future__ import annotations

import torch
from torch import Tensor

from ebsc_core import InnerProductModel, Options


class KnnOptions(Options):
    """Options of the cosine neighbours."""

    weighted: bool = False
    """Use the cosine (never below 0) as the coefficient instead of 1."""


class CosineNeighbors(InnerProductModel):
    """The ``top_k`` rows of largest cosine, each with coefficient 1 (or its cosine)."""

    Options = KnnOptions

    def __init__(self, options: KnnOptions, width: int) -> None:
        self.options = options

    def queries(self, rows: Tensor) -> Tensor:
        return rows

    def keys(self, rows: Tensor) -> Tensor:
        return rows

    def weigh(self, scores: Tensor, normaliser: Tensor) -> Tensor:
        return scores.clamp_min(0) if self.options.weighted else torch.ones_like(scores)

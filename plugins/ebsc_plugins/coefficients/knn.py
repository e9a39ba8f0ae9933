"""Use cosine neighbours as coefficients: the start of the energy network, and its baseline."""

from __future__ import annotations

from torch import Tensor

from ebsc_core import InnerProductModel, Options, related


class KnnOptions(Options):
    """Configure the cosine neighbours."""

    weighted: bool = False
    """The coefficient is the cosine, at least 0, instead of 1."""


class CosineNeighbors(InnerProductModel):
    """Give the ``top_k`` rows of largest cosine the coefficient 1, or their cosine; 0 to unrelated rows."""

    Options = KnnOptions

    def __init__(self, options: KnnOptions, width: int) -> None:
        self.options = options

    def queries(self, rows: Tensor) -> Tensor:
        return rows

    def keys(self, rows: Tensor) -> Tensor:
        return rows

    def weigh(self, scores: Tensor, normaliser: Tensor) -> Tensor:
        if self.options.weighted:
            return scores.clamp_min(0)
        return related(scores).to(scores.dtype)

"""Cosine neighbours: the energy network's starting point, and the rival it is judged by."""

from __future__ import annotations

import torch
from torch import Tensor

from ebsc_core.coefficients import top_k_inner_products
from ebsc_core.interfaces import CoefficientModel, Coefficients
from ebsc_core.options import Options
from ebsc_core.products import PackedRows


class KnnOptions(Options):
    """Options of the cosine neighbours."""

    weighted: bool = False
    """Use the cosine (never below 0) as the coefficient instead of 1."""


class CosineNeighbours(CoefficientModel):
    """The ``top_k`` rows of largest cosine, each with coefficient 1 (or its cosine)."""

    Options = KnnOptions

    def __init__(self, options: KnnOptions, width: int) -> None:
        self.options = options

    def encode(self, dictionary: Tensor) -> PackedRows:
        return PackedRows(dictionary)

    def coefficients(self, queries: Tensor, encoded: PackedRows, top_k: int, own: Tensor) -> Coefficients:
        cosines, indices, _ = top_k_inner_products(queries, encoded, top_k, own)
        values = cosines.clamp_min(0) if self.options.weighted else torch.ones_like(cosines)
        return Coefficients(indices, values)

"""Least-squares regression: coefficients in closed form, ridge regression of each row on all others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from ebsc_core import CoefficientModel, Coefficients, Options, PackedRows, RidgeInverse, exclude_own


class LeastSquaresOptions(Options):
    """Options of least-squares regression."""

    gamma: float = Field(10.0, gt=0)
    """Weight of the reconstruction error against the squared coefficients."""
    exclude_self: bool = False
    """Forbid a row to express itself while solving; otherwise its own coefficient is dropped afterwards."""


@dataclass(frozen=True)
class _Encoded:
    mapped: PackedRows
    """``X (XᵀX + I/γ)⁻¹``, ``(N, D)``: its inner products with a query are the coefficients."""
    gain: Tensor
    """``(N,)``, what the coefficients of row i are multiplied by when it may not express itself."""


class LeastSquares(CoefficientModel):
    """``min_c ‖c‖² + γ ‖x - Xᵀc‖²``, solved by ``c = X (XᵀX + I/γ)⁻¹ x``.

    LSR of Lu et al., "Robust and Efficient Subspace Segmentation via Least Squares Regression" (ECCV 2012);
    with ``exclude_self`` under the constraint ``c_ii = 0``. The ``top_k`` largest by absolute value are kept.
    The paper keeps all, so that how many is left to the framework.
    """

    Options = LeastSquaresOptions

    def __init__(self, options: LeastSquaresOptions, width: int) -> None:
        self.options = options

    def encode(self, dictionary: Tensor) -> _Encoded:
        mapped, leverage = RidgeInverse(dictionary, 1 / self.options.gamma).own()
        # Sherman-Morrison: without row i all other coefficients keep their proportions.
        gain = 1 / (1 - leverage) if self.options.exclude_self else torch.ones_like(leverage)
        return _Encoded(PackedRows(mapped), gain.to(dictionary.dtype))

    def coefficients(self, queries: Tensor, encoded: _Encoded, top_k: int, own: Tensor) -> Coefficients:
        scores = encoded.mapped.products(queries)
        scores *= torch.where(own >= 0, encoded.gain[own.clamp_min(0)], 1).unsqueeze(1)
        strength = scores.abs()
        exclude_own(strength, own)
        indices = strength.topk(top_k, dim=1).indices
        return Coefficients(indices, scores.gather(1, indices))

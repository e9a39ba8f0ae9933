"""Compute coefficients in closed form, by ridge regression of each row on all others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from ebsc_core import CoefficientModel, Coefficients, Options, PackedRows, RidgeInverse, exclude_own


class LeastSquaresOptions(Options):
    """Configure least-squares regression."""

    gamma: float = Field(10.0, gt=0)
    """The weight of the reconstruction error relative to the squared coefficients."""
    exclude_self: bool = False
    """The solver excludes a row from its own expression. Otherwise its own coefficient is dropped
    afterwards."""


@dataclass(frozen=True)
class _Encoded:
    mapped: PackedRows
    """The rows ``X (XᵀX + I/γ)⁻¹``, ``(N, D)``: their inner products with a query are the coefficients."""
    gain: Tensor
    """Factors ``(N,)`` for the coefficients of each row if rows may not express themselves."""


class LeastSquares(CoefficientModel):
    """Solve ``min_c ‖c‖² + γ ‖x - Xᵀc‖²`` by ``c = X (XᵀX + I/γ)⁻¹ x``.

    This is LSR of Lu et al., "Robust and Efficient Subspace Segmentation via Least Squares Regression"
    (ECCV 2012). ``exclude_self`` adds the constraint ``c_ii = 0``. The model keeps the ``top_k``
    coefficients of largest absolute value. The paper keeps all coefficients, so the framework chooses
    ``top_k``.
    """

    Options = LeastSquaresOptions

    def __init__(self, options: LeastSquaresOptions, width: int) -> None:
        self.options = options

    def encode(self, dictionary: Tensor) -> _Encoded:
        mapped, leverage = RidgeInverse(dictionary, 1 / self.options.gamma).own()
        # Sherman-Morrison: without row i, all other coefficients keep their proportions.
        gain = 1 / (1 - leverage) if self.options.exclude_self else torch.ones_like(leverage)
        return _Encoded(PackedRows(mapped), gain.to(dictionary.dtype))

    def coefficients(self, queries: Tensor, encoded: _Encoded, top_k: int, own: Tensor) -> Coefficients:
        scores = encoded.mapped.products(queries)
        scores *= torch.where(own >= 0, encoded.gain[own.clamp_min(0)], 1).unsqueeze(1)
        strength = scores.abs()
        exclude_own(strength, own)
        indices = strength.topk(top_k, dim=1).indices
        return Coefficients(indices, scores.gather(1, indices))

"""Least-squares regression: coefficients in closed form, ridge regression of each row on all others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.coefficients import exclude_own
from ebsc_core.interfaces import CoefficientModel, Coefficients
from ebsc_core.options import Options

# Dictionary rows turned to float64 at once: what a chunk of 4,096 x 3,072 takes is 100 MB.
CHUNK = 4096


class LeastSquaresOptions(Options):
    """Options of least-squares regression."""

    gamma: float = Field(10.0, gt=0)
    """Weight of the reconstruction error against the squared coefficients."""
    exclude_self: bool = False
    """Forbid a row to express itself while solving; otherwise its own coefficient is dropped afterwards."""


class Rows:
    """Rows whose inner products with many queries are wanted."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        on_cpu = rows.device.type == "cpu" and rows.dtype == torch.float32
        # oneDNN took half of MKL's time on an AMD processor, and torch's own product is MKL's.
        self.packed = rows.to_mkldnn() if on_cpu and torch.backends.mkldnn.is_available() else None

    def products(self, queries: Tensor) -> Tensor:
        """Inner products of queries ``(B, D)`` with all rows, ``(B, N)``."""
        if self.packed is None:
            return queries @ self.rows.T
        return F.linear(queries.to_mkldnn(), self.packed).to_dense()


@dataclass(frozen=True)
class _Encoded:
    mapped: Rows
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
        mapped, leverage = ridge_map(dictionary, 1 / self.options.gamma)
        # Sherman-Morrison: without row i all other coefficients keep their proportions.
        gain = 1 / (1 - leverage) if self.options.exclude_self else torch.ones_like(leverage)
        return _Encoded(Rows(mapped), gain.to(dictionary.dtype))

    def coefficients(self, queries: Tensor, encoded: _Encoded, top_k: int, own: Tensor) -> Coefficients:
        scores = encoded.mapped.products(queries)
        scores *= torch.where(own >= 0, encoded.gain[own.clamp_min(0)], 1).unsqueeze(1)
        strength = scores.abs()
        exclude_own(strength, own)
        indices = strength.topk(top_k, dim=1).indices
        return Coefficients(indices, scores.gather(1, indices))


def ridge_map(dictionary: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """``X (XᵀX + λI)⁻¹ = (XXᵀ + λI)⁻¹ X``, ``(N, D)``, and its rows' inner products with X's, ``(N,)``.

    Solved on the smaller side, D×D or N×N, in float64; the second stays so.
    """
    n, width = dictionary.shape
    # Apple's Metal has no float64.
    precise = torch.float32 if dictionary.device.type == "mps" else torch.float64
    if n <= width:
        rows = dictionary.to(precise)
        mapped = torch.cholesky_solve(rows, _factor(rows @ rows.T, ridge))
        return mapped.to(dictionary.dtype), (mapped * rows).sum(dim=1)
    chunks = [slice(start, start + CHUNK) for start in range(0, n, CHUNK)]
    gram = torch.zeros(width, width, dtype=precise, device=dictionary.device)
    for chunk in chunks:
        rows = dictionary[chunk].to(precise)
        gram += rows.T @ rows
    factor = _factor(gram, ridge)
    result, leverage = torch.empty_like(dictionary), gram.new_empty(n)
    for chunk in chunks:
        rows = dictionary[chunk].to(precise)
        mapped = torch.cholesky_solve(rows.T, factor).T
        result[chunk], leverage[chunk] = mapped, (mapped * rows).sum(dim=1)
    return result, leverage


def _factor(gram: Tensor, ridge: float) -> Tensor:
    gram.diagonal().add_(ridge)
    return torch.linalg.cholesky(gram)

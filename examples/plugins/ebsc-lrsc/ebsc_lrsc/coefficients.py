"""Low-rank subspace clustering: coefficients of least nuclear norm, in closed form."""

import torch
from pydantic import Field
from torch import Tensor

from ebsc_core import CoefficientModel, Coefficients, Options, exclude_own


class LowRankOptions(Options):
    """Options of lrsc."""

    tau: float = Field(1.0, gt=0)
    """Weight of the reconstruction error against the nuclear norm. Directions in which the rows' squares sum
    to less than 1/tau count as noise and are left out."""


class LowRank(CoefficientModel):
    """``min_C ‖C‖_* + τ/2 ‖X - CX‖²`` over rows ``X (N, D)``.

    Favaro, Vidal, Ravichandran, "A closed form solution to robust subspace estimation and clustering"
    (CVPR 2011), and Vidal, Favaro, "Low rank subspace clustering" (Pattern Recognition Letters 2014): with
    ``X = U S Vᵀ``, ``C = U (I - S⁻²/τ) Uᵀ`` over the singular values above ``1/√τ``. Since ``U = X V S⁻¹``, a
    row x of the data or outside has coefficients ``X M x`` with ``M = V S⁻² (I - S⁻²/τ) Vᵀ``, and nothing is
    N×N. The ``top_k`` largest by absolute value are kept, and a row's own is left out.
    """

    Options = LowRankOptions

    def __init__(self, options: LowRankOptions, width: int) -> None:
        self.options = options

    def encode(self, dictionary: Tensor) -> Tensor:
        """``X M``, ``(N, D)``: its inner products with a query are the coefficients."""
        rows = dictionary.double() if dictionary.device.type != "mps" else dictionary
        squares, directions = torch.linalg.eigh(rows.T @ rows)
        kept = squares > 1 / self.options.tau
        weights = (1 - 1 / (self.options.tau * squares)) / squares
        mapped = rows @ directions * torch.where(kept, weights, 0) @ directions.T
        return mapped.to(dictionary.dtype)

    def coefficients(self, queries: Tensor, encoded: Tensor, top_k: int, own: Tensor) -> Coefficients:
        """Of queries ``(B, D)`` over the ``N`` rows; ``(B, N)`` is held for a moment."""
        scores = queries @ encoded.T
        strength = scores.abs()
        exclude_own(strength, own)
        indices = strength.topk(top_k, dim=1).indices
        return Coefficients(indices, scores.gather(1, indices))

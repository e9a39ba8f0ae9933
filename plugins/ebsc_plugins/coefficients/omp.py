"""Orthogonal matching pursuit (SSC-OMP): coefficients by greedy choice, one dictionary row at a time."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from ebsc_core import CoefficientModel, Coefficients, Options, PackedRows, exclude_own
from ebsc_plugins.coefficients.workers import precise, side_by_side

# Queries that advance together: many calls' worth of work, while their scores stay in the cache.
TOGETHER = 256
# Scores, and entries of bases, held at once: 2^24 float64 are 128 MiB.
AT_ONCE = 1 << 24


class OmpOptions(Options):
    """Options of orthogonal matching pursuit."""

    threshold: float = Field(1e-6, ge=0)
    """Squared residual below which a row is expressed well enough to stop before ``top_k`` rows."""


class OrthogonalMatchingPursuit(CoefficientModel):
    """``min_c ‖x - Xᵀc‖²`` with at most ``top_k`` coefficients, greedily.

    You, Robinson, Vidal, "Scalable Sparse Subspace Clustering by Orthogonal Matching Pursuit" (CVPR 2016),
    algorithm 1: choose the dictionary row of largest ``|x_jᵀr|``, project x on all chosen ones, let r be what
    remains. ``top_k`` is the paper's ``k_max``; for MNIST the authors use 5.

    Each row keeps an orthonormal basis of what it has chosen (Gram-Schmidt, twice), so that a step costs two
    products. A dictionary row in the span of the chosen ones, such as a duplicate, has nothing to offer: when
    no other is left, the row stops.
    """

    Options = OmpOptions

    def __init__(self, options: OmpOptions, width: int) -> None:
        self.options = options

    def encode(self, dictionary: Tensor) -> PackedRows:
        return PackedRows(dictionary)

    def coefficients(self, queries: Tensor, encoded: PackedRows, top_k: int, own: Tensor) -> Coefficients:
        n, width = encoded.rows.shape
        together = max(1, min(TOGETHER, AT_ONCE // n, AT_ONCE // (top_k * (top_k + width))))
        parts = side_by_side(
            lambda part: self._pursue(part[0], encoded, top_k, part[1]),
            zip(queries.split(together), own.split(together), strict=True),
            queries.device,
        )
        indices, values = (torch.cat(part) for part in zip(*parts, strict=True))
        return Coefficients(indices, values.to(queries.dtype))

    def _pursue(self, queries: Tensor, encoded: PackedRows, top_k: int, own: Tensor) -> tuple[Tensor, Tensor]:
        target = queries.to(precise(queries.device))
        residual = target.clone()
        size, width = queries.shape
        chosen = own.new_empty(size, 0)
        basis = target.new_zeros(size, top_k, width)
        # Row t of ``weights`` says how the chosen row t is made of the basis; target is basisᵀ @ parts.
        weights, parts = target.new_zeros(size, top_k, top_k), target.new_zeros(size, top_k)
        dependent = 8 * torch.finfo(queries.dtype).eps
        for step in range(top_k):
            scores = encoded.products(residual.to(queries.dtype)).abs_()
            exclude_own(scores, own)
            scores.scatter_(1, chosen, -torch.inf)
            best = scores.argmax(dim=1, keepdim=True)
            chosen = torch.cat([chosen, best], dim=1)
            atom = encoded.rows[best.squeeze(1)].to(target.dtype)
            direction, along = _orthogonal(atom, basis[:, :step])
            length = direction.norm(dim=1)
            useful = (residual.square().sum(dim=1) >= self.options.threshold) & (length > dependent)
            direction = torch.where(useful, 1 / length, 0).unsqueeze(1) * direction
            share = (direction * residual).sum(dim=1)
            residual -= share.unsqueeze(1) * direction
            basis[:, step], parts[:, step] = direction, share
            weights[:, step, :step] = along
            weights[:, step, step] = torch.where(useful, length, 1)
        values = torch.linalg.solve_triangular(weights.mT, parts.unsqueeze(2), upper=True).squeeze(2)
        return chosen, values


def _orthogonal(rows: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """What of rows ``(B, D)`` is outside orthonormal bases ``(B, t, D)``; their parts inside, ``(B, t)``."""
    along = (basis @ rows.unsqueeze(2)).squeeze(2)
    outside = rows - (along.unsqueeze(1) @ basis).squeeze(1)
    # Once more, for what rounding left.
    rest = (basis @ outside.unsqueeze(2)).squeeze(2)
    return outside - (rest.unsqueeze(1) @ basis).squeeze(1), along + rest

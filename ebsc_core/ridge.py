"""Ridge regression on many rows, and rows freed from what it finds they have in common."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Rows turned to float64 at once: what a chunk of 4,096 x 3,072 takes is 100 MB.
CHUNK = 4096


class RidgeInverse:
    """``(XᵀX + λI)⁻¹`` for rows X ``(N, D)`` and a ridge λ, to be applied to any rows.

    Factorised on the smaller side, D×D or N×N, in float64. No gradient passes to X. Of rows that are not
    finite, nothing is: that is for whoever looks at the result to say.
    """

    def __init__(self, rows: Tensor, ridge: float | Tensor) -> None:
        self.rows = rows.detach()
        # Apple's Metal has no float64.
        self.home = torch.device("cpu") if rows.device.type == "mps" else rows.device
        self.ridge = self._precise(ridge) if isinstance(ridge, Tensor) else ridge
        n, width = rows.shape
        self.few = self._precise(self.rows) if n <= width else None
        if self.few is not None:
            gram = self.few @ self.few.T
        else:
            gram = torch.zeros(width, width, dtype=torch.float64, device=self.home)
            for chunk in map(self._precise, self.rows.split(CHUNK)):
                gram += chunk.T @ chunk
        gram.diagonal().add_(self.ridge)
        self.factor = torch.linalg.cholesky_ex(gram).L

    def __call__(self, rows: Tensor) -> Tensor:
        """Of each row z ``(B, D)``, ``(XᵀX + λI)⁻¹ z``; differentiable."""
        parts = (self._apply(self._precise(part)).to(rows) for part in rows.split(CHUNK))
        if torch.is_grad_enabled() and rows.requires_grad:
            return torch.cat(list(parts))
        result = torch.empty_like(rows)
        for place, part in zip(result.split(CHUNK), parts, strict=True):
            place.copy_(part)
        return result

    def own(self) -> tuple[Tensor, Tensor]:
        """``X (XᵀX + λI)⁻¹``, ``(N, D)``, and its rows' inner products with X's, ``(N,)`` float64."""
        if self.few is not None:  # X (XᵀX + λI)⁻¹ = (XXᵀ + λI)⁻¹ X
            mapped = self._solve(self.few)
            return mapped.to(self.rows), (mapped * self.few).sum(dim=1).to(self.rows.device)
        result, leverage = torch.empty_like(self.rows), self.factor.new_empty(len(self.rows))
        for start in range(0, len(self.rows), CHUNK):
            chunk = slice(start, start + CHUNK)
            rows = self._precise(self.rows[chunk])
            mapped = self._apply(rows)
            result[chunk], leverage[chunk] = mapped, (mapped * rows).sum(dim=1)
        return result, leverage.to(self.rows.device)

    def _apply(self, rows: Tensor) -> Tensor:
        if self.few is None:
            return self._solve(rows.T).T
        # (XᵀX + λI)⁻¹ = (I - Xᵀ (XXᵀ + λI)⁻¹ X) / λ
        return (rows - self._solve(self.few @ rows.T).T @ self.few) / self.ridge

    def _solve(self, columns: Tensor) -> Tensor:
        return torch.cholesky_solve(columns, self.factor)

    def _precise(self, rows: Tensor) -> Tensor:
        return rows.to(self.home).to(torch.float64)


class Whitening:
    """``z -> norm((XᵀX + λI)⁻¹ z)`` for unit-length rows X, λ the mean of the Gram matrix's eigenvalues.

    Up to its length this is what ridge regression on all rows leaves of z, ``z - Xᵀ (XXᵀ + λI)⁻¹ X z``: the
    directions in which all rows are alike count for little, those of few rows for much. Whitening in the
    strict sense takes the root of the inverse (see ``docs/method.md``). No label enters, and rows that were
    not among X are mapped alike.
    """

    def __init__(self, rows: Tensor) -> None:
        self.inverse = RidgeInverse(rows, mean_eigenvalue(rows))

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows ``(B, D)`` whitened, of unit length; differentiable."""
        mapped = self.inverse(rows)
        return F.normalize(mapped, dim=1, out=None if mapped.requires_grad else mapped)


def mean_eigenvalue(rows: Tensor) -> Tensor:
    """Of the smaller of ``XXᵀ`` and ``XᵀX``, a scalar; a little above 0 where all rows are 0."""
    squares = torch.linalg.vector_norm(rows.detach()).square()
    return (squares / min(rows.shape)).clamp_min(torch.finfo(torch.float32).tiny)

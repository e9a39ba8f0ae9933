"""Ridge regression on many rows, and rows freed from what it finds they have in common."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Rows turned to float64 at once: what a chunk of 4,096 x 3,072 takes is 100 MB.
CHUNK = 4096


class RidgeInverse:
    """``(XᵀX + λI)⁻¹`` for rows X ``(N, D)`` and a ridge λ, to be applied to any rows.

    Factorised on the smaller side, D×D or N×N, in float64. No gradient passes to X.
    """

    def __init__(self, rows: Tensor, ridge: float) -> None:
        self.ridge = ridge
        self.dtype = precise(rows.device)
        rows = rows.detach()
        n, width = rows.shape
        # With fewer rows than columns, (XᵀX + λI)⁻¹ = (I - Xᵀ (XXᵀ + λI)⁻¹ X) / λ.
        self.few = rows.to(self.dtype) if n <= width else None
        if self.few is not None:
            gram = self.few @ self.few.T
        else:
            gram = torch.zeros(width, width, dtype=self.dtype, device=rows.device)
            for chunk in rows.split(CHUNK):
                chunk = chunk.to(self.dtype)
                gram += chunk.T @ chunk
        gram.diagonal().add_(ridge)
        self.factor = torch.linalg.cholesky(gram)

    def __call__(self, rows: Tensor) -> Tensor:
        """Of each row z ``(B, D)``, ``(XᵀX + λI)⁻¹ z``; differentiable."""
        return torch.cat([self._apply(part.to(self.dtype)).to(rows.dtype) for part in rows.split(CHUNK)])

    def leverage(self, rows: Tensor) -> Tensor:
        """Of each row z, ``zᵀ (XᵀX + λI)⁻¹ z``, ``(B,)`` float64."""
        parts = (part.to(self.dtype) for part in rows.split(CHUNK))
        return torch.cat([(self._apply(part) * part).sum(dim=1) for part in parts])

    def _apply(self, rows: Tensor) -> Tensor:
        if self.few is None:
            return torch.cholesky_solve(rows.T, self.factor).T
        return (rows - torch.cholesky_solve(self.few @ rows.T, self.factor).T @ self.few) / self.ridge


class Whitening:
    """``z -> norm((XᵀX + λI)⁻¹ z)`` for unit-length rows X, λ the mean of the Gram matrix's eigenvalues.

    Up to its length this is what ridge regression on all rows leaves of z, ``z - Xᵀ (XXᵀ + λI)⁻¹ X z``: the
    directions in which all rows are alike count for little, those of few rows for much. Whitening proper
    would take the root of the inverse; the inverse itself wants no smaller λ to do as well (measured in
    ``docs/method.md``). No label enters, and rows that were not among X are mapped alike.
    """

    def __init__(self, rows: Tensor) -> None:
        self.inverse = RidgeInverse(rows, mean_eigenvalue(rows))

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows ``(B, D)`` whitened, of unit length; differentiable."""
        return F.normalize(self.inverse(rows), dim=1)


def mean_eigenvalue(rows: Tensor) -> float:
    """Of the smaller of ``XXᵀ`` and ``XᵀX``; a little above 0 where all rows are 0."""
    return max(float(rows.detach().square().sum()) / min(rows.shape), torch.finfo(torch.float32).tiny)


def precise(device: torch.device) -> torch.dtype:
    """The dtype to solve in: float64, which Apple's Metal has not."""
    return torch.float32 if device.type == "mps" else torch.float64

"""Whiten rows: damp the directions that all rows share, by ridge regression on all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.data.features.rows import Rows

# Number of rows converted to float64 at once. A chunk of 4,096 x 3,072 takes 100 MB.
CHUNK = 4096


class RidgeInverse:
    """Apply ``(XᵀX + λI)⁻¹`` to any rows, for rows X ``(N, D)`` and a ridge λ.

    The matrix is factorised on the smaller side, D×D or N×N, in float64. No gradient passes to X. If X is
    not finite, no result is; the caller checks the result.
    """

    def __init__(self, rows: Tensor, ridge: float | Tensor) -> None:
        self.rows = rows.detach()
        self.ridge = precise(ridge) if isinstance(ridge, Tensor) else ridge
        n, width = rows.shape
        self.few = precise(self.rows) if n <= width else None
        matrix = gram([self.rows]) if self.few is None else self.few @ self.few.T
        matrix.diagonal().add_(self.ridge)
        self.factor = torch.linalg.cholesky_ex(matrix).L

    def __call__(self, rows: Tensor) -> Tensor:
        """Return ``(XᵀX + λI)⁻¹ z`` for each row z of ``(B, D)``; differentiable."""
        return _by_chunks(self._apply, rows)

    def own(self) -> tuple[Tensor, Tensor]:
        """Return ``X (XᵀX + λI)⁻¹`` ``(N, D)`` and its rows' inner products with X's, ``(N,)`` float64."""
        if self.few is not None:  # X (XᵀX + λI)⁻¹ = (XXᵀ + λI)⁻¹ X
            mapped = self._solve(self.few)
            return mapped.to(self.rows), (mapped * self.few).sum(dim=1).to(self.rows.device)
        result, leverage = torch.empty_like(self.rows), self.factor.new_empty(len(self.rows))
        for start in range(0, len(self.rows), CHUNK):
            chunk = slice(start, start + CHUNK)
            rows = precise(self.rows[chunk])
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


def gram(blocks: Iterable[Tensor]) -> Tensor:
    """Return ``XᵀX``, ``(D, D)`` float64, of rows X in one or more blocks ``(B, D)``."""
    total: Tensor | None = None
    for block in blocks:
        for chunk in map(precise, block.split(CHUNK)):
            product = chunk.T @ chunk
            total = product if total is None else total.add_(product)
    assert total is not None
    return total


class Whitening:
    """Map rows ``z -> norm((XᵀX + λI)⁻¹ z)``, for unit-length rows X.

    λ is the mean of the eigenvalues of the Gram matrix. Up to its length, the result is the residual of z
    after ridge regression on all rows, ``z - Xᵀ (XXᵀ + λI)⁻¹ X z``. Directions that all rows share get a
    small weight, and directions of few rows get a large one. Whitening in the strict sense takes the square
    root of the inverse (see ``docs/decisions.md``). No label enters. Rows that are not in X are mapped in the
    same way.

    A :class:`Rows` is read once, in blocks.
    """

    def __init__(self, rows: Tensor | Rows) -> None:
        self.inverse: Callable[[Tensor], Tensor]
        if isinstance(rows, Rows) and len(rows) > rows.width:
            matrix = _damped_inverse(gram(block for _, block in rows.blocks()))
            self.inverse = lambda rows: _by_chunks(lambda part: part @ matrix, rows)
            return
        held = rows.held() if isinstance(rows, Rows) else rows
        self.inverse = RidgeInverse(held, mean_eigenvalue(held))

    def __call__(self, rows: Tensor) -> Tensor:
        """Whiten rows ``(B, D)`` and scale them to unit length; differentiable."""
        mapped = self.inverse(rows)
        return F.normalize(mapped, dim=1, out=None if mapped.requires_grad else mapped)


def mean_eigenvalue(rows: Tensor) -> Tensor:
    """Return the mean eigenvalue of the smaller of ``XXᵀ`` and ``XᵀX``, a scalar.

    The value is slightly above 0 if all rows are 0.
    """
    squares = torch.linalg.vector_norm(rows.detach()).square()
    return (squares / min(rows.shape)).clamp_min(torch.finfo(torch.float32).tiny)


def _damped_inverse(matrix: Tensor) -> Tensor:
    """Return ``(G + λI)⁻¹`` of a Gram matrix G ``(D, D)``, with λ the mean of its eigenvalues.

    An explicit inverse halves the work on each row. It is accurate enough, because no eigenvalue of the sum
    is more than D + 1 times another.
    """
    ridge = matrix.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)
    matrix.diagonal().add_(ridge)
    return torch.cholesky_inverse(torch.linalg.cholesky_ex(matrix).L)


def _by_chunks(change: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Apply ``change`` to rows ``(B, D)`` in float64; keep the rows' dtype and the gradient, if any."""
    parts = (change(precise(part)).to(rows) for part in rows.split(CHUNK))
    if torch.is_grad_enabled() and rows.requires_grad:
        return torch.cat(list(parts))
    result = torch.empty_like(rows)
    for place, part in zip(result.split(CHUNK), parts, strict=True):
        place.copy_(part)
    return result


def precise(rows: Tensor) -> Tensor:
    """Convert rows to float64, on the CPU if the device has no float64 (Apple's Metal)."""
    return rows.to(torch.device("cpu") if rows.device.type == "mps" else rows.device).to(torch.float64)

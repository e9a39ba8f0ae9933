"""What closed-form and greedy models do with the rows of a dictionary."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Dictionary rows turned to float64 at once: what a chunk of 4,096 x 3,072 takes is 100 MB.
CHUNK = 4096


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


def precise(device: torch.device) -> torch.dtype:
    """The dtype to solve in: float64, which Apple's Metal has not."""
    return torch.float32 if device.type == "mps" else torch.float64


def ridge_map(dictionary: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """``X (XᵀX + λI)⁻¹ = (XXᵀ + λI)⁻¹ X``, ``(N, D)``, and its rows' inner products with X's, ``(N,)``.

    Solved on the smaller side, D×D or N×N, in float64; the second stays so.
    """
    n, width = dictionary.shape
    dtype = precise(dictionary.device)
    if n <= width:
        rows = dictionary.to(dtype)
        mapped = torch.cholesky_solve(rows, _factor(rows @ rows.T, ridge))
        return mapped.to(dictionary.dtype), (mapped * rows).sum(dim=1)
    chunks = [slice(start, start + CHUNK) for start in range(0, n, CHUNK)]
    gram = torch.zeros(width, width, dtype=dtype, device=dictionary.device)
    for chunk in chunks:
        rows = dictionary[chunk].to(dtype)
        gram += rows.T @ rows
    factor = _factor(gram, ridge)
    result, leverage = torch.empty_like(dictionary), gram.new_empty(n)
    for chunk in chunks:
        rows = dictionary[chunk].to(dtype)
        mapped = torch.cholesky_solve(rows.T, factor).T
        result[chunk], leverage[chunk] = mapped, (mapped * rows).sum(dim=1)
    return result, leverage


def _factor(gram: Tensor, ridge: float) -> Tensor:
    gram.diagonal().add_(ridge)
    return torch.linalg.cholesky(gram)

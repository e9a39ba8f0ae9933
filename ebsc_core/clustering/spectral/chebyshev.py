"""Improve a block of approximate eigenvectors with a Chebyshev filter and the Rayleigh-Ritz method.

The large products run on one device in float32. The small dense problems decide between nearly equal
eigenvalues, so they run in float64 on the CPU.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

# If the least diagonal entry of the Cholesky factor (of unit-length columns) is at least this, Cholesky
# orthonormalises the columns to about 1e-5. Otherwise Householder reflections do it.
INDEPENDENT = 0.2


@dataclass(frozen=True)
class Block:
    """Hold Ritz vectors of a symmetric operator and their images under it."""

    vectors: Tensor
    """The vectors, ``(N, m)``, as orthonormal columns."""
    image: Tensor
    """The operator times the vectors, ``(N, m)``."""
    values: np.ndarray
    """The Ritz values, ``(m,)`` float64, descending."""

    def residuals(self) -> np.ndarray:
        """Compute ``‖A v - λ v‖`` of each vector, ``(m,)``."""
        values = torch.from_numpy(self.values).to(self.vectors)
        return (self.image - self.vectors * values).norm(dim=0).double().cpu().numpy()


def to_torch(matrix: sparse.csr_matrix, device: torch.device) -> Tensor:
    """Convert the matrix to a sparse CSR tensor in float32."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse (CSR tensor support is in beta|invariant checks)")
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr),
            torch.from_numpy(matrix.indices),
            torch.from_numpy(matrix.data.astype(np.float32, copy=False)),
            size=matrix.shape,
            device=device,
            check_invariants=False,
        )


def rayleigh_ritz(operator: Tensor, basis: Tensor) -> Block:
    """Compute the Ritz vectors in the span of a basis ``(N, m)``, which need not be orthonormal.

    With the Gram matrix ``G = L Lᵀ``, ``X L⁻ᵀ`` is orthonormal. That step and the rotation to Ritz vectors
    are one product.
    """
    gram = _small(basis.T @ basis)
    scale = gram.diagonal().rsqrt()
    factor, failed = torch.linalg.cholesky_ex(scale[:, None] * gram * scale)
    if int(failed) or not float(factor.diagonal().min()) >= INDEPENDENT:
        basis = torch.linalg.qr(basis).Q
        whitening = torch.eye(len(gram), dtype=gram.dtype)
    else:
        whitening = scale[:, None] * torch.linalg.inv(factor).T
    image = operator @ basis
    small = whitening.T @ _small(basis.T @ image) @ whitening
    values, rotation = torch.linalg.eigh((small + small.T) / 2)
    rotation = (whitening @ rotation.flip(1)).to(basis)
    return Block(basis @ rotation, image @ rotation, values.flip(0).numpy())


def filtered(operator: Tensor, block: Block, cut: float, degree: int) -> Tensor:
    """Apply a Chebyshev polynomial that stays within ±1 on ``[-1, cut]`` and grows beyond, to a block.

    This takes ``degree`` products; the block's image is the first of them. The block's tensors are
    overwritten.
    """
    center, half = (cut - 1) / 2, max((cut + 1) / 2, 1e-3)
    # Scale by the value at 1, the largest possible eigenvalue, so that nothing overflows.
    sigma = half / (1 - center)
    tau = 2 / sigma
    previous, current = block.vectors, block.image
    current.sub_(previous, alpha=center).mul_(sigma / half)
    for _ in range(degree - 1):
        sigma_next = 1 / (tau - sigma)
        step = 2 * sigma_next / half
        previous.mul_(-sigma * sigma_next).sub_(current, alpha=step * center)
        torch.addmm(previous, operator, current, alpha=step, out=previous)
        previous, current = current, previous
        sigma = sigma_next
    return current


def growth(values: np.ndarray, cut: float) -> np.ndarray:
    """Compute the logarithm of the factor by which one more degree amplifies each eigenvalue's share."""
    center, half = (cut - 1) / 2, max((cut + 1) / 2, 1e-3)
    return np.arccosh(np.maximum((values - center) / half, 1))


def _small(matrix: Tensor) -> Tensor:
    return matrix.double().cpu()

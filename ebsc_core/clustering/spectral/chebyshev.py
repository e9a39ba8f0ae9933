"""A block of approximate eigenvectors, and what brings it nearer: a Chebyshev filter, then Rayleigh and Ritz.

Everything is on one device and in float32, but the small problems, which decide between nearly equal
eigenvalues: those are in float64 on the CPU.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

# Least diagonal entry of the Cholesky factor of unit-length columns that orthonormalises them to 1e-5 or so.
# Columns nearer to dependence take Householder reflections.
INDEPENDENT = 0.2


@dataclass(frozen=True)
class Block:
    """Ritz vectors of a symmetric operator, and what it makes of them."""

    vectors: Tensor
    """``(N, m)``, orthonormal columns."""
    image: Tensor
    """``(N, m)``, the operator times the vectors."""
    values: np.ndarray
    """``(m,)`` float64 Ritz values, descending."""

    def residuals(self) -> np.ndarray:
        """``‖A v - λ v‖`` of each vector, ``(m,)``."""
        values = torch.from_numpy(self.values).to(self.vectors)
        return (self.image - self.vectors * values).norm(dim=0).double().cpu().numpy()


def to_torch(matrix: sparse.csr_matrix, device: torch.device) -> Tensor:
    """The matrix as a sparse CSR tensor, float32."""
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
    """The Ritz vectors within the span of a basis ``(N, m)``, which need not be orthonormal.

    With ``G = L Lᵀ`` its Gram matrix, ``X L⁻ᵀ`` is; that and the rotation to Ritz vectors are one product.
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
    """A block's vectors, times the Chebyshev polynomial that is within ±1 on ``[-1, cut]`` and grows beyond.

    ``degree`` products, the first of which is the block's image. The block's tensors are used up.
    """
    center, half = (cut - 1) / 2, max((cut + 1) / 2, 1e-3)
    # Scaled by its value at 1, the largest eigenvalue there can be, so that nothing overflows.
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
    """By how much one degree more of that polynomial multiplies each eigenvalue's share, as a logarithm."""
    center, half = (cut - 1) / 2, max((cut + 1) / 2, 1e-3)
    return np.arccosh(np.maximum((values - center) / half, 1))


def _small(matrix: Tensor) -> Tensor:
    return matrix.double().cpu()

"""Leading eigenvectors of a normalised affinity, by Chebyshev-filtered subspace iteration.

A good self-expressive affinity is nearly disconnected, so its leading eigenvalue 1 is repeated. Single-vector
Lanczos (scipy's ``eigsh``) misses copies of a repeated eigenvalue; a block method does not.

Source: Zhou, Saad, Tiago, Chelikowsky, "Self-consistent-field calculations using Chebyshev-filtered
subspace iteration", J. Comput. Phys. 219 (2006), with the filter's cut-off moved to the
smallest Ritz value of the block at each round.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

GUARD = 8
DEGREE = 12
# Blocks that span half of the space gain nothing from a filter; their size is bounded by the block, not by N.
DENSE_RATIO = 2


@dataclass(frozen=True)
class Eigenpairs:
    """Leading eigenpairs of ``D^-½ W D^-½``."""

    values: np.ndarray
    """``(m,)`` float32, descending, at most 1."""
    vectors: np.ndarray
    """``(N, m)`` float32, orthonormal columns."""
    residual: float
    """Largest ``‖A v - λ v‖`` of the returned pairs."""


def normalised(affinity: sparse.csr_matrix) -> sparse.csr_matrix:
    """``D^-½ W D^-½`` with ``D`` the row sums; rows without weight stay zero."""
    degree = np.asarray(affinity.sum(axis=1)).ravel()
    inverse_root = np.divide(1.0, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)
    scale = sparse.diags_array(inverse_root.astype(np.float32))
    return sparse.csr_matrix(scale @ affinity @ scale)


@torch.no_grad()
def leading_eigenpairs(
    affinity: sparse.csr_matrix,
    n_vectors: int,
    seed: int = 0,
    tolerance: float = 1e-3,
    max_rounds: int = 60,
    device: str | torch.device = "cpu",
) -> Eigenpairs:
    """The ``n_vectors`` algebraically largest eigenpairs of the normalised affinity.

    Parameters
    ----------
    affinity : csr_matrix of shape (N, N)
        Symmetric, non-negative.
    n_vectors : int
        How many, from 1 to N.
    seed : int
        Of the start block; the same seed gives the same vectors.
    tolerance : float
        The iteration stops when every residual norm ``‖A v - λ v‖`` is below it.
    max_rounds : int
        Filter applications at most; whatever residual is left is reported, never hidden.

    Raises
    ------
    ValueError
        If ``n_vectors`` is not in ``1 … N``.
    """
    n = affinity.shape[0]
    if not 1 <= n_vectors <= n:
        raise ValueError(f"n_vectors must be in 1 … {n}, not {n_vectors}")
    matrix = normalised(affinity)
    size = n_vectors + GUARD
    if n <= DENSE_RATIO * size:
        return _dense(matrix, n_vectors)
    return _filtered(matrix, n_vectors, size, seed, tolerance, max_rounds, torch.device(device))


def _dense(matrix: sparse.csr_matrix, n_vectors: int) -> Eigenpairs:
    values, vectors = np.linalg.eigh(matrix.toarray().astype(np.float64))
    leading = slice(None, -n_vectors - 1, -1)
    return Eigenpairs(values[leading].astype(np.float32), vectors[:, leading].astype(np.float32), 0.0)


def _filtered(
    matrix: sparse.csr_matrix,
    n_vectors: int,
    size: int,
    seed: int,
    tolerance: float,
    max_rounds: int,
    device: torch.device,
) -> Eigenpairs:
    operator = _to_torch(matrix).to(device)
    generator = torch.Generator().manual_seed(seed)
    block = torch.randn(matrix.shape[0], size, generator=generator).to(device)
    cut, residual = 0.0, float("inf")
    for _ in range(max_rounds):
        block = torch.linalg.qr(_chebyshev(operator, block, cut)).Q
        image = operator @ block
        # Rayleigh-Ritz in float64: the small problem decides between nearly equal eigenvalues.
        small = (block.T @ image).double()
        values, rotation = torch.linalg.eigh((small + small.T) / 2)
        values, rotation = values.flip(0).float(), rotation.flip(1).float()
        block, image = block @ rotation, image @ rotation
        errors = (image - block * values).norm(dim=0)[:n_vectors]
        residual = float(errors.max())
        if residual < tolerance:
            break
        cut = min(float(values[-1]), 0.999)
    return Eigenpairs(
        values[:n_vectors].clamp(max=1.0).cpu().numpy(),
        block[:, :n_vectors].contiguous().cpu().numpy(),
        residual,
    )


def _to_torch(matrix: sparse.csr_matrix) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int64)),
            torch.from_numpy(matrix.indices.astype(np.int64)),
            torch.from_numpy(matrix.data.astype(np.float32)),
            size=matrix.shape,
            check_invariants=False,
        )


def _chebyshev(operator: Tensor, block: Tensor, cut: float, degree: int = DEGREE) -> Tensor:
    """Apply the Chebyshev polynomial that stays within ±1 on ``[-1, cut]`` and grows beyond."""
    centre, half = (cut - 1) / 2, max((cut + 1) / 2, 1e-3)
    # Scaled by its value at 1, the largest eigenvalue there can be, so that nothing overflows.
    sigma = half / (1 - centre)
    tau = 2 / sigma
    previous, current = block, (operator @ block - centre * block) * (sigma / half)
    for _ in range(degree - 1):
        sigma_next = 1 / (tau - sigma)
        following = (operator @ current - centre * current) * (2 * sigma_next / half)
        previous, current = current, following - sigma * sigma_next * previous
        sigma = sigma_next
    return current

"""Compute leading eigenvectors of a normalised affinity by Chebyshev-filtered subspace iteration.

A good self-expressive affinity is nearly disconnected, so its leading eigenvalue 1 is repeated.
Single-vector Lanczos (scipy's ``eigsh``) misses copies of a repeated eigenvalue; a block method does not.
The search on a large graph starts from the vectors of a coarser one
(:mod:`ebsc_core.clustering.spectral.coarsening`).

Source: Zhou, Saad, Tiago, Chelikowsky, "Self-consistent-field calculations using Chebyshev-filtered
subspace iteration", J. Comput. Phys. 219 (2006). Two things differ: in each round the filter's cut-off
moves to the smallest Ritz value of the block, and its degree follows the residuals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ebsc_core.clustering.spectral.chebyshev import Block, filtered, growth, rayleigh_ritz, to_torch
from ebsc_core.clustering.spectral.coarsening import coarsened, degrees, in_order, inverse_roots
from ebsc_core.utils.matmul import full_precision

GUARD = 8
# Blocks that span half of the space gain nothing from a filter; their size is bounded by the block, not by N.
DENSE_RATIO = 2
# Eigenvalues may be too near each other to be told apart. Of so few nodes, all are computed within a second.
DENSE_NODES = 1000
# Higher, and what is least amplified is lost beside what is most, in float32.
MIN_DEGREE, LARGEST_DEGREE = 4, 12
# Of the first filter after a coarse start: until it has passed, residuals make weights look too large.
FIRST_DEGREE = 8
# Up to so many nodes, or so many times the block, the search starts at random.
COARSEST, COARSEST_RATIO = 2000, 8
# A start need not be better: on the larger graph it will be off by more.
START_TOLERANCE, START_ROUNDS = 0.03, 4

Weigh = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Eigenpairs:
    """Hold leading eigenpairs of ``D^-½ W D^-½``."""

    values: np.ndarray
    """The eigenvalues, ``(m,)`` float32, descending, at most 1."""
    vectors: np.ndarray
    """The eigenvectors, ``(N, m)`` float32, as orthonormal columns."""
    residual: float
    """The largest ``‖A v - λ v‖`` of the returned pairs."""
    weighted_residual: float
    """The largest residual after each is multiplied by its vector's weight relative to the largest
    weight."""


@dataclass(frozen=True)
class Aim:
    """Describe what to compute and when it is accurate enough."""

    n_vectors: int
    tolerance: float
    max_rounds: int
    weigh: Weigh
    seed: int
    device: torch.device

    @property
    def size(self) -> int:
        """The number of vectors in the block."""
        return self.n_vectors + GUARD


def normalized(affinity: sparse.csr_matrix) -> sparse.csr_matrix:
    """Compute ``D^-½ W D^-½``, where ``D`` holds the row sums; rows without weight stay zero."""
    scale = inverse_roots(degrees(affinity))
    data = affinity.data * np.repeat(scale, np.diff(affinity.indptr)) * scale[affinity.indices]
    return sparse.csr_matrix((data, affinity.indices, affinity.indptr), shape=affinity.shape)


@torch.no_grad()
def leading_eigenpairs(
    affinity: sparse.csr_matrix,
    n_vectors: int,
    seed: int = 0,
    tolerance: float = 1e-3,
    max_rounds: int = 60,
    device: str | torch.device = "cpu",
    weigh: Weigh = np.ones_like,
) -> Eigenpairs:
    """Compute the ``n_vectors`` algebraically largest eigenpairs of the normalised affinity.

    Parameters
    ----------
    affinity : csr_matrix of shape (N, N)
        Symmetric, non-negative.
    n_vectors : int
        Number of eigenpairs, from 1 to N.
    seed : int
        Seed of the start block. The same seed gives the same vectors.
    tolerance : float
        The iteration stops when every weighted residual norm ``w ‖A v - λ v‖`` is at most this.
    max_rounds : int
        The largest number of filter applications. The result reports the residual that is left; a graph of
        at most 1,000 nodes is then solved as a dense matrix.
    device : str or device
        Where products with the affinity are computed. Metal has no sparse products, so the CPU replaces it.
    weigh : callable
        Maps eigenvalues ``(m,)``, at most 1, to the weight of each vector. Only ratios of weights matter.
        Vectors with a small weight need not converge. By default all weights are equal.

    Raises
    ------
    ValueError
        If ``n_vectors`` is not in ``1 … N``.
    """
    n = affinity.shape[0]
    if not 1 <= n_vectors <= n:
        raise ValueError(f"n_vectors must be in 1 … {n}, not {n_vectors}")
    device = torch.device(device)
    where = torch.device("cpu") if device.type == "mps" else device
    aim = Aim(n_vectors, tolerance, max_rounds, weigh, seed, where)
    if n <= DENSE_RATIO * aim.size:
        return _dense(normalized(affinity), n_vectors)
    with full_precision():
        block, order = _found(affinity, aim)
    residuals, weighted = _residuals(block, aim)
    if n <= DENSE_NODES and weighted.max() > tolerance:
        return _dense(normalized(affinity), n_vectors)
    vectors = np.empty((n, n_vectors), np.float32)
    vectors[order] = block.vectors[:, :n_vectors].cpu().numpy()
    values = np.minimum(block.values[:n_vectors], 1).astype(np.float32)
    return Eigenpairs(values, vectors, float(residuals.max()), float(weighted.max()))


def _dense(matrix: sparse.csr_matrix, n_vectors: int) -> Eigenpairs:
    values, vectors = np.linalg.eigh(matrix.toarray().astype(np.float64))
    leading = slice(None, -n_vectors - 1, -1)
    return Eigenpairs(values[leading].astype(np.float32), vectors[:, leading].astype(np.float32), 0.0, 0.0)


def _found(graph: sparse.csr_matrix, aim: Aim) -> tuple[Block, np.ndarray]:
    """Compute the block, and the order of nodes that its rows have."""
    start = _coarse_start(graph, aim) if graph.shape[0] > max(COARSEST, COARSEST_RATIO * aim.size) else None
    if start is None:
        order = np.arange(graph.shape[0])
        operator = to_torch(normalized(graph), aim.device)
        noise = torch.randn(len(order), aim.size, generator=torch.Generator().manual_seed(aim.seed))
        block = rayleigh_ritz(operator, noise.to(aim.device))
    else:
        vectors, values, order = start
        operator = to_torch(_permuted(normalized(graph), order), aim.device)
        block = Block(vectors, operator @ vectors, values)
    for number in range(aim.max_rounds):
        _, weighted = _residuals(block, aim)
        # Once at least: the eigenvalues of a random block, or of a coarser graph, are not those of this one.
        if number and weighted.max() <= aim.tolerance:
            break
        cut = float(np.clip(block.values[-1], 0, 0.999))
        most = FIRST_DEGREE if start is not None and number == 0 else LARGEST_DEGREE
        degree = min(most, _degree(block, cut, weighted, aim))
        block = rayleigh_ritz(operator, filtered(operator, block, cut, degree))
    return block, order


def _coarse_start(graph: sparse.csr_matrix, aim: Aim) -> tuple[Tensor, np.ndarray, np.ndarray] | None:
    """Compute a start from a coarser graph: orthonormal vectors, Ritz values, and the order of the nodes.

    The order keeps aggregates together, and aggregates of aggregates, so that neighbours are close in
    memory. Return None if the coarser graph is hardly smaller, or is too small.
    """
    coarse, aggregate = coarsened(graph)
    if not DENSE_RATIO * aim.size <= coarse.shape[0] <= 0.9 * graph.shape[0]:
        return None
    loose = replace(aim, tolerance=max(aim.tolerance, START_TOLERANCE), max_rounds=START_ROUNDS)
    block, coarse_order = _found(coarse, loose)
    rank = np.empty_like(coarse_order)
    rank[coarse_order] = np.arange(len(rank))
    place = rank[aggregate]
    order = in_order(place)
    spread = inverse_roots(degrees(coarse))[aggregate] * np.sqrt(degrees(graph))
    rows = block.vectors[torch.from_numpy(place[order]).to(aim.device)]
    return rows.mul_(torch.from_numpy(spread[order]).to(rows)[:, None]), block.values, order


def _permuted(matrix: sparse.csr_matrix, order: np.ndarray) -> sparse.csr_matrix:
    """Permute rows and columns; within a row, the entries keep their order."""
    rank = np.empty(len(order), matrix.indices.dtype)
    rank[order] = np.arange(len(order))
    rows = matrix[order]
    return sparse.csr_matrix((rows.data, rank[rows.indices], rows.indptr), shape=matrix.shape)


def _residuals(block: Block, aim: Aim) -> tuple[np.ndarray, np.ndarray]:
    """Compute the residual norms of the leading vectors, plain and weighted, each ``(n_vectors,)``.

    An eigenvalue may exceed its Ritz value by as much as the residual. The weight is that of this larger
    value, relative to the largest weight: while all values are too low, all weights are too low as well.
    """
    residuals = block.residuals()[: aim.n_vectors]
    weights = aim.weigh(np.minimum(block.values[: aim.n_vectors] + residuals, 1))
    return residuals, residuals * weights / max(float(weights.max()), np.finfo(np.float32).tiny)


def _degree(block: Block, cut: float, weighted: np.ndarray, aim: Aim) -> int:
    """Compute the filter degree that brings the weighted residuals down to the tolerance, within bounds."""
    # Of degree d it multiplies what is wanted by half of exp(d growth), what is not by 1 at most.
    gain = np.log(np.maximum(2 * weighted / aim.tolerance, 1))
    needed = gain / np.maximum(growth(block.values[: aim.n_vectors], cut), 1e-3)
    return int(np.clip(np.ceil(needed.max()), MIN_DEGREE, LARGEST_DEGREE))

"""From eigenvectors of a graph to rows that k-means can cut: as many count as there are clusters to find.

Eigenvalues say how much each vector counts, by a power of them as in diffusion maps (Coifman and Lafon 2006).
How fast they fall differs a hundredfold between graphs, so the power is the graph's own.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

MAX_POWER = 1000.0


def effective_power(eigenvalues: np.ndarray, n_clusters: int) -> float:
    """The power t with ``Σ λ^(2t) = K``, at most 1,000 (a graph in more than K pieces has none).

    Parameters
    ----------
    eigenvalues : ndarray of shape (m,)
        Leading eigenvalues in [0, 1]; with no more than K above 0, t is 0.
    """

    def surplus(power: float) -> float:
        return float((eigenvalues.astype(np.float64) ** power).sum()) - n_clusters

    if np.count_nonzero(eigenvalues) <= n_clusters:
        return 0.0
    if surplus(2 * MAX_POWER) >= 0:
        return MAX_POWER
    return float(brentq(surplus, 0.0, 2 * MAX_POWER)) / 2


def weighted_rows(vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rows of ``V diag(w)``, ``(N, m)``, scaled to unit length; rows of zeros stay zero."""
    rows = vectors * weights
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(norms, np.finfo(np.float32).tiny)

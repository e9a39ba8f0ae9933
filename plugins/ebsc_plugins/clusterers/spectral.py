"""Cluster a self-expressive affinity spectrally, with eigenvalue-weighted rows."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy import sparse

from ebsc_core import (
    Clusterer,
    Options,
    eigenvalue_weights,
    kmeans,
    leading_eigenpairs,
    weighted_rows,
)

SMALL = 5000


class SpectralOptions(Options):
    """Configure spectral clustering."""

    vectors_per_cluster: int = Field(4, ge=1)
    """The number of eigenvectors per cluster. With more than one, a real sub-structure can take an
    eigenvector and no two clusters merge."""
    power: float | None = Field(None, ge=0)
    """Eigenvectors are weighted by their eigenvalues to this power t; 0 weights all alike. By default, the
    weights sum to K vectors, Σ λ^(2t) = K."""
    n_init: int | None = Field(None, ge=1)
    """The number of k-means starts. Of those with nearly the least inertia, the one of largest modularity in
    the graph wins. The default is 50 for up to 5,000 rows, where one start more or less can change the
    result, and 10 for more rows. 51 to 2,500 clusters have one start, by merging."""
    tolerance: float | None = Field(None, gt=0)
    """An eigenvector has converged when its residual times its weight is below this value. The default is
    0.0003 for up to 5,000 rows, where it can decide near ties, and 0.005 for more rows."""


class SpectralClustering(Clusterer):
    """Run k-means on unit-length rows of ``V diag(λ^t)``, V the leading eigenvectors of ``D^-½ W D^-½``.

    With exactly K vectors (Ng, Jordan, Weiss 2002), a real sub-structure can take an eigenvector, and then
    two clusters merge. More vectors, weighted by a power of their eigenvalues as in diffusion maps (Coifman
    and Lafon 2006), let the graph decide how much each vector counts. The decay of the eigenvalues differs
    a hundredfold between graphs, so each graph has its own power: the total weight equals that of K
    vectors.
    """

    Options = SpectralOptions
    consumes: ClassVar[Literal["affinity"]] = "affinity"

    def __init__(self, options: SpectralOptions, n_clusters: int, seed: int) -> None:
        self.options, self.n_clusters, self.seed = options, n_clusters, seed

    def fit_predict(self, data: sparse.csr_matrix | np.ndarray) -> np.ndarray:
        """Return labels ``(N,)``; set ``eigenvalues_``, ``embedding_`` and ``warnings_``."""
        assert isinstance(data, sparse.csr_matrix)
        n_vectors = min(self.options.vectors_per_cluster * self.n_clusters, data.shape[0])
        small = data.shape[0] <= SMALL
        tolerance = self.options.tolerance or (3e-4 if small else 5e-3)
        pairs = leading_eigenpairs(
            data, n_vectors, self.seed, tolerance, device=self.device, weigh=self._weights
        )
        self.eigenvalues_ = pairs.values
        self.warnings_ = _convergence_warnings(pairs.weighted_residual, tolerance)
        self.embedding_ = weighted_rows(pairs.vectors, self._weights(pairs.values))
        n_init = self.options.n_init or (50 if small else 10)
        return kmeans(self.embedding_, self.n_clusters, n_init, self.seed, self.device, data)

    def _weights(self, eigenvalues: np.ndarray) -> np.ndarray:
        """Compute the weight ``λ^t`` of each eigenvector."""
        return eigenvalue_weights(eigenvalues, self.n_clusters, self.options.power)


def _convergence_warnings(residual: float, tolerance: float) -> list[str]:
    if residual <= tolerance:
        return []
    return [
        f"eigenvectors not fully converged: largest weighted residual {residual:.1e}, wanted {tolerance:.0e}"
    ]

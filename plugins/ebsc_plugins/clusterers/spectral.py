"""Spectral clustering of a self-expressive affinity, with eigenvalue-weighted rows."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy import sparse

from ebsc_core import Clusterer, Options, effective_power, kmeans, leading_eigenpairs, weighted_rows

SMALL = 5000


class SpectralOptions(Options):
    """Options of spectral clustering."""

    vectors_per_cluster: int = Field(4, ge=1)
    """Eigenvectors computed per cluster; a true sub-structure takes one without merging two clusters."""
    power: float | None = Field(None, ge=0)
    """Power t of the eigenvalues that weight the eigenvectors; 0 weights them all alike. By default the one
    at which the weights count for K vectors, Σ λ^(2t) = K."""
    n_init: int | None = Field(None, ge=1)
    """Restarts of k-means; the best inertia is kept. By default 50 up to 5,000 rows, where one start more
    or less still decides, and 10 beyond."""
    tolerance: float | None = Field(None, gt=0)
    """Residual at which an eigenvector counts as converged, times the vector's weight. By default 0.0003 up
    to 5,000 rows, where near ties still hang on it, and 0.005 beyond."""


class SpectralClustering(Clusterer):
    """k-means on unit-length rows of ``V diag(λ^t)``, V the leading eigenvectors of ``D^-½ W D^-½``.

    With exactly K vectors (Ng, Jordan, Weiss 2002) a real sub-structure takes an eigenvector and two clusters
    merge; more vectors, weighted by a power of their eigenvalues as in diffusion maps (Coifman and
    Lafon 2006), let the graph decide how much each counts. How fast eigenvalues fall differs a hundredfold
    between graphs, so the power is the graph's own: the one that leaves as much weight as K vectors have.
    """

    Options = SpectralOptions
    consumes: ClassVar[Literal["affinity"]] = "affinity"

    def __init__(self, options: SpectralOptions, n_clusters: int, seed: int) -> None:
        self.options, self.n_clusters, self.seed = options, n_clusters, seed

    def fit_predict(self, data: sparse.csr_matrix | np.ndarray) -> np.ndarray:
        """Labels ``(N,)``; sets ``eigenvalues_``, ``power_``, ``embedding_`` and ``warnings_``."""
        assert isinstance(data, sparse.csr_matrix)
        n_vectors = min(self.options.vectors_per_cluster * self.n_clusters, data.shape[0])
        small = data.shape[0] <= SMALL
        tolerance = self.options.tolerance or (3e-4 if small else 5e-3)
        pairs = leading_eigenpairs(
            data, n_vectors, self.seed, tolerance, device=self.device, weigh=self._weights
        )
        self.eigenvalues_ = pairs.values
        self.warnings_ = _convergence_warnings(pairs.weighted_residual, tolerance)
        self.power_ = self._power(pairs.values)
        self.embedding_ = weighted_rows(pairs.vectors, self._weights(pairs.values))
        n_init = self.options.n_init or (50 if small else 10)
        return kmeans(self.embedding_, self.n_clusters, n_init, self.seed, self.device)

    def _power(self, eigenvalues: np.ndarray) -> float:
        given = self.options.power
        return effective_power(np.clip(eigenvalues, 0, 1), self.n_clusters) if given is None else given

    def _weights(self, eigenvalues: np.ndarray) -> np.ndarray:
        """How much each vector counts, ``λ^t``."""
        return np.clip(eigenvalues, 0, 1) ** self._power(eigenvalues)


def _convergence_warnings(residual: float, tolerance: float) -> list[str]:
    if residual <= tolerance:
        return []
    return [
        f"eigenvectors not fully converged: largest weighted residual {residual:.1e}, wanted {tolerance:.0e}"
    ]

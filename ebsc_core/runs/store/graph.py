"""Read the affinity of a finished run together with the positions and clusters of its rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.sampling import sample_positions


@dataclass(frozen=True)
class Graph:
    """Hold the affinity with the positions and clusters of its rows."""

    matrix: sparse.csr_matrix
    """The affinity has shape ``(M, M)``."""
    positions: np.ndarray
    """The positions ``(M,)`` of the rows in ``assignments.csv``."""
    clusters: np.ndarray
    """The clusters ``(M,)`` of the rows."""


def graph_of(run: SavedRun) -> Graph | None:
    """Return the affinity of a run; None if the run did not keep it or if its size does not fit the run."""
    matrix, found = run.affinity, run.assignments
    if matrix is None:
        return None
    size = run.metrics.get("dictionary_size")
    positions = sample_positions(found.fitted, size, run.config.seed)
    if matrix.shape != (len(positions), len(positions)):
        return None
    return Graph(matrix, positions, found.clusters[positions])

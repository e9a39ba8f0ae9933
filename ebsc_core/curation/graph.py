"""Read the affinity graph of a finished run, with the clusters of its rows after all decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.errors import RunDirectoryError
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
    return Graph(matrix, positions, run.curated.clusters[positions])


def required_graph(run: SavedRun, what: str) -> Graph:
    """Return the affinity of a run.

    Raises
    ------
    RunDirectoryError
        If the run did not keep it. The text says ``what`` needs it.
    """
    graph = graph_of(run)
    if graph is None:
        raise RunDirectoryError(
            f"{what} needs the affinity of the run, and {run.path} has kept none that fits it; repeat the run"
        )
    return graph


def own_affinity(graph: Graph) -> np.ndarray:
    """Return the sum ``(M,)`` of each row's affinity to its own cluster, not as a share."""
    rows = np.repeat(np.arange(len(graph.clusters)), np.diff(graph.matrix.indptr))
    same = (graph.clusters[rows] == graph.clusters[graph.matrix.indices]) & (graph.clusters[rows] >= 0)
    return np.bincount(rows, weights=graph.matrix.data * same, minlength=len(graph.clusters))


def affinity_between(graph: Graph, numbers: Sequence[int]) -> np.ndarray:
    """Return ``(K, K)`` float64: the sum of the affinity from each cluster (row) to each cluster (column).

    Images of other clusters, or of none, are left out.

    Parameters
    ----------
    numbers : sequence of int
        The numbers of the ``K`` clusters, ascending.
    """
    place = np.full(max(int(graph.clusters.max(initial=-1)), *numbers, 0) + 1, -1)
    place[np.array(numbers, dtype=np.int64)] = np.arange(len(numbers))
    at = np.where(graph.clusters >= 0, place[graph.clusters], -1)
    rows, columns = np.repeat(at, np.diff(graph.matrix.indptr)), at[graph.matrix.indices]
    inside = (rows >= 0) & (columns >= 0)
    shape = (len(numbers), len(numbers))
    mass = sparse.coo_matrix((graph.matrix.data[inside], (rows[inside], columns[inside])), shape=shape)
    return mass.toarray().astype(np.float64)

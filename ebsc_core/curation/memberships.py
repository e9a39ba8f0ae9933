"""Share each image among the clusters, and sort the images of a cluster by how sure it is of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ebsc_core.clustering.spectral.coarsening import degrees
from ebsc_core.curation.graph import Graph, graph_of, own_affinity, required_graph
from ebsc_core.runs.store.saved import SavedRun

# Number of shares that are held at once: 2^22 float64 are 32 MiB.
HELD_SHARES = 1 << 22


@dataclass(frozen=True)
class Memberships:
    """Hold the share of each image's affinity that goes to each cluster."""

    numbers: list[int]
    """The numbers of the ``K`` clusters, ascending."""
    shares: sparse.csr_matrix
    """``(N, K)`` in [0, 1], a row for each line of ``assignments.csv``. A row sums to 1, or to less if
    affinity goes to images without a cluster. It is empty for an image without affinity: one that was held
    out, or is not in the sample that was clustered."""

    def ranked(self, own: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        """Return for each image its own cluster, and then those with the largest shares, with these shares.

        Parameters
        ----------
        own : ndarray of shape (N,)
            The cluster of each image; -1 for none.
        top : int
            The number of clusters of each image, its own included.

        Returns
        -------
        clusters : ndarray of shape (N, top), int64
            -1 where no more clusters have a share, and first for an image that has no cluster.
        shares : ndarray of shape (N, top)
            0 where there is no cluster.
        """
        count, width = self.shares.shape
        clusters, shares = np.full((count, top), -1), np.zeros((count, top))
        # A last column stands for no cluster: it is the own one of an image that has none.
        numbers = np.array([*self.numbers, -1], dtype=np.int64)
        kept = min(top, len(numbers))
        size = max(1, HELD_SHARES // max(width, 1))
        for start in range(0, count, size):
            part = slice(start, min(start + size, count))
            dense = np.pad(self.shares[part].toarray(), ((0, 0), (0, 1)))
            first = dense + 2.0 * (numbers == own[part, None])
            order = np.argsort(-first, axis=1, kind="stable")[:, :kept]
            found = np.take_along_axis(dense, order, axis=1)
            there = np.take_along_axis(first, order, axis=1) > 0
            clusters[part, :kept] = np.where(there, numbers[order], -1)
            shares[part, :kept] = np.where(there, found, 0)
        return clusters, shares


def memberships(run: SavedRun) -> Memberships:
    """Compute the share of each image's affinity that goes to each cluster, after all decisions.

    Raises
    ------
    RunDirectoryError
        If the run has not kept its affinity.
    """
    graph = required_graph(run, "a share of the affinity")
    return memberships_of(graph, run.curated.numbers, len(run.assignments.ids))


def memberships_of(graph: Graph, numbers: list[int], n: int) -> Memberships:
    """Compute the share of the affinity of each of ``n`` images that goes to each cluster."""
    inside = np.flatnonzero(graph.clusters >= 0)
    columns = np.searchsorted(numbers, graph.clusters[inside])
    shape = (len(graph.clusters), len(numbers))
    members = sparse.csr_matrix((np.ones(len(inside)), (inside, columns)), shape=shape)
    total = degrees(graph.matrix)
    scale = np.divide(1.0, total, out=np.zeros(len(total)), where=total > 0)
    found = (sparse.diags_array(scale) @ graph.matrix @ members).tocoo()
    places = graph.positions[found.row], found.col
    shares = sparse.csr_matrix((found.data, places), shape=(n, len(numbers)))
    return Memberships(numbers, shares)


def sureness(run: SavedRun) -> np.ndarray:
    """Return how sure the run is of the cluster of each image, ``(N,)`` in [0, 1].

    This is the confidence of the run. In clusters that were merged or split since, it is the share of an
    image's affinity that goes to its cluster as it is now, for the images that have affinity. An image that
    was moved by hand has 1, or 0 in no cluster.
    """
    curated, graph = run.curated, graph_of(run)
    sure = curated.sure(run.assignments.confidence)
    if graph is None or not curated.changed:
        return sure
    touched = np.isin(graph.clusters, list(curated.changed)) & ~curated.by_hand[graph.positions]
    total = degrees(graph.matrix)
    own = np.divide(own_affinity(graph), total, out=np.zeros(len(total)), where=total > 0)
    sure[graph.positions[touched]] = own[touched]
    return sure


def from_typical_to_doubtful(members: np.ndarray, sure: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Sort positions of images, the most typical first.

    Of equally sure images, the one with the larger affinity to the cluster is the more typical one.
    """
    return members[np.lexsort((-mass[members], -sure[members]))]


def own_masses(graph: Graph | None, n: int) -> np.ndarray:
    """Return the affinity ``(n,)`` of each image to its own cluster; 0 for images that have none."""
    mass = np.zeros(n)
    if graph is not None:
        mass[graph.positions] = own_affinity(graph)
    return mass

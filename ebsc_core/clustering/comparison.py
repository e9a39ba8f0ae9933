"""Compare the clusters with simpler ones of the same rows, without labels.

A model that learns can learn something wrong, and then its own figures look as good as ever. So clusters are
judged by what no model had a hand in: good clusters keep the nearest neighbours of the rows together.

Two things make this fair. The neighbours are those of the rows as they are and those of the whitened rows,
in equal parts: faces in changing light are neighbours by their light in the one and by their person in the
other. And it is not the silhouette, which favours k-means whether or not its clusters are better, because
both go by distances to means. ``docs/experiments/clusters.md`` shows the figures on labelled data.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import kneighbors_graph

from ebsc_core.clustering.metrics import modularity
from ebsc_core.clustering.spectral.coarsening import degrees

# Rows that are compared, and the most nearest neighbours of each.
SAMPLE, MAX_NEIGHBORS = 2000, 10
# Others are better if they keep so much more of the neighbours together. On labelled data, clusters that
# were worse by their classes kept up to 0.043 more.
LEAST_GAIN = 0.05
# Of fewer rows, the shares of two clusterings differ as much by chance.
LEAST_ROWS = 200


@dataclass(frozen=True)
class Rival:
    """Hold how other clusters of the same rows compare with those of the run."""

    name: str
    """How the clusters were found."""
    agreement: float
    """The adjusted Rand index with the clusters of the run."""
    neighbors_kept: float
    """As in :class:`RivalComparison`."""


@dataclass(frozen=True)
class RivalComparison:
    """Hold how well the clusters of a run keep neighbours together, and how others do."""

    rows: int
    """The number of rows that were compared."""
    neighbors_kept: float
    """The share of links to nearest neighbours that stay within the clusters, the mean over plain and
    whitened rows: 1 if all stay, 0 if no more than by chance."""
    rivals: tuple[Rival, ...]

    @property
    def better(self) -> Rival | None:
        """The rival that keeps most neighbours together, if it keeps far more than the run's clusters.

        None if the rows are too few to tell.
        """
        return self.better_among([rival.name for rival in self.rivals])

    def kept(self, name: str) -> float:
        """Return how many neighbours the rival of this name keeps together."""
        return next(rival.neighbors_kept for rival in self.rivals if rival.name == name)

    def better_among(self, names: Container[str]) -> Rival | None:
        """Return what :attr:`better` is among the rivals of these names."""
        if self.rows < LEAST_ROWS:
            return None
        rivals = [rival for rival in self.rivals if rival.name in names]
        best = max(rivals, key=lambda rival: rival.neighbors_kept, default=None)
        return best if best and best.neighbors_kept - self.neighbors_kept >= LEAST_GAIN else None

    def record(self) -> dict[str, Any]:
        """Return plain values for ``metrics.json``."""
        return {
            "rows": self.rows,
            "neighbors_kept": round(self.neighbors_kept, 4),
            "rivals": {
                rival.name: {
                    "agreement": round(rival.agreement, 4),
                    "neighbors_kept": round(rival.neighbors_kept, 4),
                }
                for rival in self.rivals
            },
        }


def compare_with_rivals(
    views: Sequence[np.ndarray], labels: np.ndarray, rivals: Mapping[str, np.ndarray]
) -> RivalComparison:
    """Compare clusters of ``M`` rows with other clusters of them.

    Parameters
    ----------
    views : sequence of ndarray of shape (M, D)
        The unit-length rows in the forms whose neighbours count.
    labels : ndarray of shape (M,)
        The clusters of the run, counted from 0.
    rivals : mapping
        The names of other clusterings, with their clusters ``(M,)``, counted from 0.
    """
    # A row of a small cluster has no more true neighbours than its cluster has other rows.
    smallest = int(np.unique(labels, return_counts=True)[1].min())
    n_neighbors = max(1, min(MAX_NEIGHBORS, smallest - 1))
    graphs = [kneighbors_graph(rows, n_neighbors, metric="cosine", include_self=False) for rows in views]

    def kept(clusters: np.ndarray) -> float:
        return float(np.mean([neighbors_kept(links, clusters) for links in graphs]))

    found = (
        Rival(name, float(adjusted_rand_score(labels, other)), kept(other)) for name, other in rivals.items()
    )
    return RivalComparison(len(labels), kept(labels), tuple(found))


def neighbors_kept(links: sparse.csr_matrix, labels: np.ndarray) -> float:
    """Compute the share of links within clusters, beyond chance: 1 if all are, 0 as often as by chance.

    This is Newman's assortativity coefficient ("Mixing patterns in networks", Phys. Rev. E 67, 2003): the
    modularity as a share of the largest that is possible with these degrees. It does not grow if clusters
    are merged or split off, unlike the share itself.
    """
    both = sparse.csr_matrix(links + links.T)
    ends = np.bincount(labels, degrees(both))
    chance = float(((ends / ends.sum()) ** 2).sum())
    return modularity(both, labels) / (1 - chance) if chance < 1 - 1e-9 else 0.0

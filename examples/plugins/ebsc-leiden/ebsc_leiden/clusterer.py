"""Find communities of the affinity with igraph's Leiden algorithm."""

import random

import igraph
import numpy as np
from pydantic import Field
from scipy import sparse

from ebsc_core import Clusterer, Options


class LeidenOptions(Options):
    """Configure leiden."""

    resolution: float = Field(1.0, gt=0)
    """The resolution of the modularity; a larger value gives more, smaller clusters."""
    smallest: int = Field(2, ge=1)
    """Communities with fewer rows count as noise: -1 in ``assignments.csv``."""


class Leiden(Clusterer):
    """Find communities of largest modularity (Traag, Waltman, van Eck, arXiv:1810.08473).

    The algorithm finds the number of communities; ``resolution`` moves it.
    """

    Options = LeidenOptions
    consumes = "affinity"
    finds_number = True

    def __init__(self, options: LeidenOptions, n_clusters: int, seed: int) -> None:
        self.options, self.seed = options, seed

    def fit_predict(self, data: sparse.csr_matrix) -> np.ndarray:
        """Return labels ``(N,)`` of an affinity ``(N, N)``; label 0 is the largest community."""
        edges = sparse.triu(data, 1, format="coo")  # each edge once
        graph = igraph.Graph(data.shape[0], np.stack([edges.row, edges.col], 1).tolist())
        igraph.set_random_number_generator(random.Random(self.seed))
        try:
            found = graph.community_leiden(
                "modularity",
                weights=edges.data.astype(np.float64).tolist(),
                resolution=self.options.resolution,
                n_iterations=-1,  # until nothing improves
            )
        finally:
            igraph.set_random_number_generator(random)
        return self._by_size(np.asarray(found.membership, dtype=np.int64))

    def _by_size(self, membership: np.ndarray) -> np.ndarray:
        """Renumber communities by size; members of too small communities become -1."""
        sizes = np.bincount(membership)
        order = np.argsort(-sizes, kind="stable")
        number = np.empty(len(sizes), dtype=np.int64)
        number[order] = np.arange(len(sizes))
        number[sizes < self.options.smallest] = -1
        return number[membership]

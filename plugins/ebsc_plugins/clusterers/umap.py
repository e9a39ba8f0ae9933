"""Cluster by k-means after UMAP, a strong simple baseline on features of a pretrained network."""

from __future__ import annotations

import warnings
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from ebsc_core import Clusterer, Options, kmeans, missing_package

# Of fewer distinct rows none has two neighbours, which UMAP needs.
MIN_ROWS = 3


class UMAPOptions(Options):
    """Configure UMAP and k-means."""

    n_neighbors: int = Field(15, ge=2)
    """The number of nearest rows that each row is connected with, itself included. With fewer rows, it is
    one less than their number."""
    n_components: int = Field(10, ge=1)
    """The number of dimensions that k-means gets."""
    min_dist: float = Field(0.0, ge=0, le=1)
    """How close UMAP may put two rows. 0 lets the rows of a cluster lie in one place."""
    n_init: int = Field(10, ge=1)
    """The number of k-means starts; the start of least inertia wins. 51 to 2,500 clusters have one
    start, by merging."""


class UMAPClustering(Clusterer):
    """Reduce the rows by UMAP (McInnes, Healy, Melville, arXiv:1802.03426), then run k-means.

    The neighbours are those of the largest cosine. The graph of the coefficients is not used for the
    clusters; images that come later join by their coefficients, as in every run, and do not go through UMAP.

    UMAP is seeded, so it uses one thread. Its warnings become warnings of the run.

    Raises
    ------
    ComponentError
        If umap-learn is not installed.
    """

    Options = UMAPOptions
    consumes: ClassVar[Literal["features"]] = "features"

    def __init__(self, options: UMAPOptions, n_clusters: int, seed: int) -> None:
        self.options, self.n_clusters, self.seed = options, n_clusters, seed
        try:  # before a coefficient model trains, and no earlier: the import takes seconds
            from umap import UMAP
        except ImportError as error:
            raise missing_package("clusterer 'umap'", "umap-learn", "umap", error) from None
        self.reducer_class = UMAP

    def fit_predict(self, data: np.ndarray) -> np.ndarray:
        """Return labels ``(N,)``, and set ``warnings_``."""
        # With as many copies of a row as neighbours, UMAP may put them far apart.
        rows, distinct = np.unique(data, axis=0, return_inverse=True)
        with warnings.catch_warnings(record=True) as caught:
            reduced = self._reduced(rows) if len(rows) >= MIN_ROWS else rows
        self.warnings_ = list(dict.fromkeys(" ".join(str(w.message).split()) for w in caught))
        return kmeans(reduced[distinct], self.n_clusters, self.options.n_init, self.seed, self.device)

    def _reduced(self, rows: np.ndarray) -> np.ndarray:
        options = self.options
        reducer = self.reducer_class(
            n_neighbors=min(options.n_neighbors, len(rows) - 1),
            n_components=options.n_components,
            min_dist=options.min_dist,
            metric="cosine",
            # A graph has no more eigenvectors than rows, and UMAP takes one more than it has dimensions.
            init="spectral" if len(rows) > options.n_components + 1 else "random",
            # By default, UMAP drops edges between opposite rows, and a row without edges gets no place.
            disconnection_distance=np.inf,
            random_state=self.seed,
            n_jobs=1,  # a seed allows no more; UMAP warns if it has to change this
        )
        threads = torch.get_num_threads()
        try:
            return np.asarray(reducer.fit_transform(rows), dtype=np.float32)
        finally:  # numba starts as many threads as there are cores, in the library that torch computes with
            torch.set_num_threads(threads)

"""Cluster rows: whiten them, refine the model, express the rows by each other, and partition the graph.

Only the *dictionary* is held in memory and clustered: all rows, or a seeded sample of them. If it is a
sample, each other row is assigned to the cluster that gets most of its coefficients over the dictionary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ebsc_core.clustering import metrics
from ebsc_core.clustering.affinity import affinity
from ebsc_core.clustering.assign import Assigned, assign, vote
from ebsc_core.clustering.coefficients import Dictionary
from ebsc_core.clustering.n_clusters import NumberOfClusters, find_n_clusters
from ebsc_core.clustering.refine import refine
from ebsc_core.config.schema import AffinityOptions, RefineOptions, SearchOptions
from ebsc_core.data.features.rows import HeldRows, MappedRows, Rows
from ebsc_core.data.features.whitening import Whitening
from ebsc_core.plugins.interfaces import Clusterer, CoefficientModel, TrainableCoefficientModel
from ebsc_core.utils.progress import Progress, Stages
from ebsc_core.utils.sampling import sample_positions


@dataclass(frozen=True)
class Method:
    """Hold the two components that turn rows into clusters, and the resolved settings of the run."""

    model: CoefficientModel
    """The model, on the device. It is refined here if it is trainable."""
    clusterer: Clusterer
    top_k: int
    whiten: bool
    refine: RefineOptions
    search: SearchOptions
    affinity: AffinityOptions
    dictionary_size: int | None
    """The number of rows in the dictionary, smaller than the number of all rows; None for all rows."""
    seed: int
    device: torch.device
    recount: Callable[[int], Clusterer] | None = None
    """Builds the clusterer again for the number of clusters that was found; None if the number is given."""


@dataclass(frozen=True)
class Joining:
    """Hold what is needed to assign new rows to existing clusters."""

    dictionary: Dictionary
    clusters: np.ndarray
    """The clusters of the dictionary's rows, ``(M,)``; -1 for noise, which gets no new rows."""
    top_k: int
    show: Callable[[Tensor], Tensor]
    """Moves unit-length rows to the device and whitens them, as the dictionary's rows were."""

    def assign(self, rows: Rows) -> Assigned:
        """Assign new rows to clusters; the clusters of all other rows stay the same."""
        return assign(MappedRows(rows, self.show), self.dictionary, self.clusters, self.top_k)


@dataclass(frozen=True)
class Clustered:
    """Hold the clusters of ``N`` rows, and what is needed to assign new rows to them."""

    clusters: np.ndarray
    """``(N,)`` int64 from 0; -1 for noise."""
    confidence: np.ndarray
    """``(N,)``. For a row of the dictionary, the share of its affinity that stays within its cluster; for
    any other row, the share of its coefficients that goes to its cluster."""
    chosen: np.ndarray
    """The positions of the dictionary's rows among all rows, ``(M,)``."""
    graph: sparse.csr_matrix
    """The affinity of the dictionary's rows, ``(M, M)``."""
    agreement: float | None
    """The share of dictionary rows whose own cluster is the one that the votes of the other rows would give
    them. None if the dictionary is all rows: then no row is assigned by votes."""
    joining: Joining
    clusterer: Clusterer
    """The clusterer that computed the clusters."""
    number: NumberOfClusters | None
    """The number of clusters and the alternatives; None if the number was given."""

    @property
    def within(self) -> float:
        """The mean over the dictionary of the share of a row's affinity that stays within its cluster."""
        return float(self.confidence[self.chosen].mean())


def cluster_best(
    rows: Rows, methods: Sequence[Method], stage: Stages, progress: Progress
) -> tuple[Method, list[float], Clustered]:
    """Choose the method whose clusters keep the largest share of the affinity within them.

    The shares are comparable if the graphs have the same number of coefficients for each row. No label
    enters. If two methods are equal, the first one wins. Fewer clusters keep a larger share, so if the
    methods also find the number of clusters, the method with the more stable number wins.

    Returns
    -------
    Method, list of float, Clustered
        The best method, the share of every method, and the clusters of the best one.
    """
    best, kept = methods[0], cluster_rows(rows, methods[0], stage, progress)
    shares = [kept.within]
    for method in methods[1:]:
        found = cluster_rows(rows, method, stage, progress)
        shares.append(found.within)
        if _merit(found) > _merit(kept):
            best, kept = method, found
    return best, shares, kept


def _merit(found: Clustered) -> float:
    return found.number.candidates[0].score if found.number else found.within


def cluster_rows(rows: Rows, method: Method, stage: Stages, progress: Progress) -> Clustered:
    """Cluster unit-length rows ``(N, D)``.

    The rows are read in blocks. Only the dictionary is held in memory at once.
    """
    size = method.dictionary_size
    chosen, show = _dictionary_rows(rows, method), _shown(rows, method, stage)
    all_shown = MappedRows(rows, show)
    shown = all_shown.take(chosen) if size else all_shown.held()
    if isinstance(method.model, TrainableCoefficientModel):
        with stage("refine coefficients"):
            refine(method.model.train(), shown, method.refine, method.seed, progress)
        method.model.eval()
    with stage("coefficients"):
        dictionary = _dictionary(rows, method, shown)
        own = torch.arange(len(shown), device=shown.device)
        coefficients = dictionary.express(shown, method.top_k, own)
        del shown
        graph = affinity(coefficients, method.affinity)
    clusterer, number = method.clusterer, None
    if method.recount:
        with stage("number of clusters"):
            number = find_n_clusters(graph, method.seed, method.device)
        clusterer = method.recount(number.chosen)
    clusterer.device = method.device
    with stage("clusters"):
        clusters = _cut(clusterer, graph, HeldRows(rows.take(chosen)) if size else rows)
    confidence, agreement = metrics.confidence(graph, clusters), None
    if size:
        agreement = float((vote(coefficients, clusters).clusters == clusters).mean())
        with stage("other rows"):
            found = assign(all_shown, dictionary, clusters, method.top_k)
        found.clusters[chosen], found.confidence[chosen] = clusters, confidence
        clusters, confidence = found.clusters, found.confidence
    joining = Joining(dictionary, clusters[chosen], method.top_k, show)
    return Clustered(clusters, confidence, chosen, graph, agreement, joining, clusterer, number)


def joining(rows: Rows, method: Method, clusters: np.ndarray, stage: Stages) -> Joining:
    """Restore the out-of-sample assigner that :func:`cluster_rows` returned for the same rows.

    The model must already have its trained weights.

    Parameters
    ----------
    clusters : ndarray of shape (N,)
        The clusters that :func:`cluster_rows` returned.
    """
    chosen, show = _dictionary_rows(rows, method), _shown(rows, method, stage)
    with stage("coefficients"):
        shown = MappedRows(rows, show).take(chosen)
        return Joining(_dictionary(rows, method, shown), clusters[chosen], method.top_k, show)


def _dictionary_rows(rows: Rows, method: Method) -> np.ndarray:
    return sample_positions(len(rows), method.dictionary_size, method.seed)


def _dictionary(rows: Rows, method: Method, shown: Tensor) -> Dictionary:
    return Dictionary(method.model, shown, len(rows), method.search, method.seed)


def _shown(rows: Rows, method: Method, stage: Stages) -> Callable[[Tensor], Tensor]:
    def moved(block: Tensor) -> Tensor:
        return block.to(method.device)

    if not method.whiten:
        return moved
    with stage("whitening"):
        whitening = Whitening(MappedRows(rows, moved))
    return lambda block: whitening(moved(block))


def _cut(clusterer: Clusterer, graph: sparse.csr_matrix, rows: Rows) -> np.ndarray:
    if clusterer.consumes == "affinity":
        return clusterer.fit_predict(graph)
    return clusterer.fit_predict(rows if clusterer.streams else rows.held().numpy())

"""Turn rows into clusters: whiten, refine the model, express rows, cluster the graph, assign the rest.

Only the *dictionary* is held in memory and clustered. It is all rows or a seeded sample of them. If it is a
sample, every other row gets the cluster that most of its coefficients over the dictionary go to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ebsc_core.clustering import metrics
from ebsc_core.clustering.affinity import affinity
from ebsc_core.clustering.assign import assign, vote
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
    """Hold the two components that turn rows into clusters, as built, and their resolved settings."""

    model: CoefficientModel
    """On the device; refined here if it can learn."""
    clusterer: Clusterer
    top_k: int
    whiten: bool
    refine: RefineOptions
    search: SearchOptions
    affinity: AffinityOptions
    dictionary_size: int | None
    """How many rows are clustered, fewer than there are; all if None."""
    seed: int
    device: torch.device
    recount: Callable[[int], Clusterer] | None = None
    """Builds the clusterer anew for the number of clusters that is found; None where that is given."""


@dataclass(frozen=True)
class OutOfSampleAssigner:
    """Assign new rows to the clusters of the dictionary's rows."""

    dictionary: Dictionary
    labels: np.ndarray
    """``(M,)``, clusters of the dictionary's rows; -1 for noise, which nothing joins."""
    top_k: int
    transform: Callable[[Tensor], Tensor]
    """From unit-length rows to those that express one another: on the device, whitened."""

    def predict(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Return labels and confidence of new rows, as :func:`assign` does; nothing else changes."""
        return assign(MappedRows(rows, self.transform), self.dictionary, self.labels, self.top_k)


@dataclass(frozen=True)
class ClusteringResult:
    """Hold the clusters of ``N`` rows, and everything that led to them."""

    labels: np.ndarray
    """``(N,)`` int64 from 0; -1 for noise."""
    confidence: np.ndarray
    """``(N,)``. Of a row of the dictionary: the share of its affinity that stays within its cluster. Of any
    other row: that share of its coefficients."""
    affinity: sparse.csr_matrix
    """``(M, M)``, of the dictionary's rows."""
    positions: np.ndarray
    """``(M,)``, the positions of the dictionary's rows among all rows."""
    agreement: float | None
    """Share of the dictionary's rows that would join their own cluster by their coefficients; None if the
    dictionary is all rows, since then no row depends on it."""
    method: Method
    """The components as built and, where they can learn, trained."""
    clusterer: Clusterer
    """The component that found the clusters."""
    assigner: OutOfSampleAssigner
    number: NumberOfClusters | None
    """The number of clusters and its rivals; None if it was given."""
    figures: dict[str, Any] = field(default_factory=dict)
    """Figures that need no class labels, as plain values; empty until a stage computes them."""

    @property
    def within(self) -> float:
        """Mean share of a row's affinity that stays within its cluster, over the dictionary."""
        return float(self.confidence[self.positions].mean())


def cluster_best(
    rows: Rows, methods: Sequence[Method], stage: Stages, progress: Progress
) -> tuple[ClusteringResult, list[float]]:
    """Cluster by each method, and return the best result with the :attr:`ClusteringResult.within` of each.

    The best clusters keep most of the affinity within them: graphs with as many coefficients a row can be
    compared by that, and no label enters. Of equals the first wins. Fewer clusters keep more; so if each
    method finds their number, the method with the more stable number wins.
    """
    results = [cluster_rows(rows, method, stage, progress) for method in methods]
    return max(results, key=_merit), [result.within for result in results]


def _merit(result: ClusteringResult) -> float:
    return result.number.candidates[0].score if result.number else result.within


def cluster_rows(rows: Rows, method: Method, stage: Stages, progress: Progress) -> ClusteringResult:
    """Cluster unit-length rows ``(N, D)``.

    Rows are read in blocks; only the dictionary is held in memory.
    """
    size = method.dictionary_size
    positions, transform = _dictionary_rows(rows, method), _row_transform(rows, method, stage)
    transformed_rows = MappedRows(rows, transform)
    transformed = transformed_rows.take(positions) if size else transformed_rows.held()
    if isinstance(method.model, TrainableCoefficientModel):
        with stage("refine coefficients"):
            refine(method.model.train(), transformed, method.refine, method.seed, progress)
        method.model.eval()
    with stage("coefficients"):
        dictionary = _dictionary(rows, method, transformed)
        own = torch.arange(len(transformed), device=transformed.device)
        coefficients = dictionary.express(transformed, method.top_k, own)
        del transformed
        graph = affinity(coefficients, method.affinity)
    clusterer, number = method.clusterer, None
    if method.recount:
        with stage("number of clusters"):
            number = find_n_clusters(graph, method.seed, method.device)
        clusterer = method.recount(number.chosen)
    clusterer.device = method.device
    with stage("clusters"):
        labels = _fit_clusterer(clusterer, graph, HeldRows(rows.take(positions)) if size else rows)
    assigner = OutOfSampleAssigner(dictionary, labels, method.top_k, transform)
    confidence, agreement = metrics.confidence(graph, labels), None
    if size:
        agreement = float((vote(coefficients, labels)[0] == labels).mean())
        with stage("other rows"):
            all_labels, all_confidence = assigner.predict(rows)
        all_labels[positions], all_confidence[positions] = labels, confidence
        labels, confidence = all_labels, all_confidence
    return ClusteringResult(
        labels, confidence, graph, positions, agreement, method, clusterer, assigner, number
    )


def rebuild_assigner(rows: Rows, method: Method, labels: np.ndarray, stage: Stages) -> OutOfSampleAssigner:
    """Rebuild the assigner of an earlier :func:`cluster_rows` on the same rows.

    Parameters
    ----------
    rows : Rows
    method : Method
        With a model that has learned already.
    labels : ndarray of shape (N,)
        The clusters of all rows.
    """
    positions, transform = _dictionary_rows(rows, method), _row_transform(rows, method, stage)
    with stage("coefficients"):
        transformed = MappedRows(rows, transform).take(positions)
        return OutOfSampleAssigner(
            _dictionary(rows, method, transformed), labels[positions], method.top_k, transform
        )


def _dictionary_rows(rows: Rows, method: Method) -> np.ndarray:
    return sample_positions(len(rows), method.dictionary_size, method.seed)


def _dictionary(rows: Rows, method: Method, transformed: Tensor) -> Dictionary:
    return Dictionary(method.model, transformed, len(rows), method.search, method.seed)


def _row_transform(rows: Rows, method: Method, stage: Stages) -> Callable[[Tensor], Tensor]:
    def moved(block: Tensor) -> Tensor:
        return block.to(method.device)

    if not method.whiten:
        return moved
    with stage("whitening"):
        whitening = Whitening(MappedRows(rows, moved))
    return lambda block: whitening(moved(block))


def _fit_clusterer(clusterer: Clusterer, graph: sparse.csr_matrix, rows: Rows) -> np.ndarray:
    if clusterer.consumes == "affinity":
        return clusterer.fit_predict(graph)
    return clusterer.fit_predict(rows if clusterer.streams else rows.held().numpy())

"""Cluster rows: whiten them, refine the model, express the rows by each other, and partition the graph.

Only the *dictionary* is held in memory and clustered: all rows, or a seeded sample of them. If it is a
sample, each other row is assigned to the cluster that gets most of its coefficients over the dictionary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ebsc_core.clustering.affinity import affinity
from ebsc_core.clustering.assign import Shares, assign, vote
from ebsc_core.clustering.coefficients import Dictionary
from ebsc_core.clustering.confidence import confidence as confidence_of
from ebsc_core.clustering.copies import Copies, find_copies
from ebsc_core.clustering.metrics import own_share
from ebsc_core.clustering.n_clusters import (
    NumberOfClusters,
    clusters_to_embed,
    find_n_clusters,
    max_clusters,
)
from ebsc_core.clustering.refine import refine
from ebsc_core.clustering.returned import checked_embedding, checked_labels, consumed
from ebsc_core.clustering.spectral.embedding import graph_embedding
from ebsc_core.config.schema import AffinityOptions, RefineOptions, SearchOptions
from ebsc_core.data.features.forms import WhitenForm, form_width, row_form
from ebsc_core.data.features.rows import HeldRows, MappedRows, Rows, SelectedRows
from ebsc_core.plugins.interfaces import Clusterer, CoefficientModel, TrainableCoefficientModel
from ebsc_core.utils.errors import DataError
from ebsc_core.utils.progress import Progress, Stages
from ebsc_core.utils.sampling import sample_positions

# The number of clusters is searched among the distinct rows if there are at least as many.
MIN_NODES = 10


@dataclass(frozen=True)
class Method:
    """Hold the two components that turn rows into clusters, and the resolved settings of the run."""

    model: CoefficientModel
    """The model, on the device. It is refined here if it is trainable."""
    clusterer: Clusterer
    top_k: int
    whiten: WhitenForm
    refine: RefineOptions
    search: SearchOptions
    affinity: AffinityOptions
    dictionary_size: int | None
    """The number of rows in the dictionary, smaller than the number of all rows; None for all rows."""
    seed: int
    device: torch.device
    n_clusters: int | None = None
    """The number of clusters, if it is given."""
    recount: Callable[[int], Clusterer] | None = None
    """Builds the clusterer again for the number of clusters that was found in the graph; None if the number
    is given, or if the clusterer finds it itself."""


@dataclass(frozen=True)
class OutOfSampleAssigner:
    """Hold what is needed to assign new rows to existing clusters."""

    dictionary: Dictionary
    labels: np.ndarray
    """The clusters of the dictionary's rows, ``(M,)``; -1 for noise, which gets no new rows."""
    confidence: np.ndarray
    """The confidence of the dictionary's rows, ``(M,)``."""
    top_k: int
    transform: Callable[[Tensor], Tensor]
    """Moves unit-length rows to the device and whitens them, as the dictionary's rows were."""

    def predict(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Return labels and confidence of new rows, as :func:`assign` does; nothing else changes."""
        found = self.shares(rows, 1)
        return found.labels, found.confidence

    def shares(self, rows: Rows, top: int) -> Shares:
        """Return how new rows are shared among the ``top`` clusters, as :func:`assign` does."""
        moved = MappedRows(rows, self.transform, self.dictionary.width)
        return assign(moved, self.dictionary, self.labels, self.confidence, self.top_k, top)


@dataclass(frozen=True)
class ClusteringResult:
    """Hold the clusters of ``N`` rows, and what is needed to assign new rows to them."""

    labels: np.ndarray
    """``(N,)`` int64 from 0; -1 for noise."""
    confidence: np.ndarray
    """``(N,)``. For a row of the dictionary, the share of its affinity that goes to clear rows of its
    cluster (:mod:`ebsc_core.clustering.confidence`). For any other row, the share of its coefficients that
    goes to its cluster, where each row there counts by its own confidence."""
    within: float
    """The mean over the dictionary of the share of a row's affinity that stays within its cluster."""
    affinity: sparse.csr_matrix
    """``(M, M)``, of the dictionary's rows."""
    positions: np.ndarray
    """The positions of the dictionary's rows among all rows, ``(M,)``."""
    agreement: float | None
    """The share of dictionary rows whose own cluster is the one that the votes of the other rows would give
    them. None if the dictionary is all rows: then no row is assigned by votes."""
    method: Method
    """The components as built and, where they can learn, trained."""
    clusterer: Clusterer
    """The clusterer that computed the clusters."""
    assigner: OutOfSampleAssigner
    number: NumberOfClusters | None
    """The number of clusters and its rivals; None if it was not searched in the graph."""
    copies: Copies | None = None
    """Which rows of the dictionary are copies of others; None if there are none."""
    figures: dict[str, Any] = field(default_factory=dict)
    """Figures that need no class labels, as plain values; empty until a stage computes them."""

    @property
    def count(self) -> int:
        """The number of clusters that have rows."""
        return len(np.unique(self.labels[self.labels >= 0]))


def cluster_rows(rows: Rows, method: Method, stage: Stages, progress: Progress) -> ClusteringResult:
    """Cluster unit-length rows ``(N, D)``.

    The rows are read in blocks. Only the dictionary is held in memory at once. Of equal and nearly equal
    rows of the dictionary only one is clustered, and the others join it.

    Raises
    ------
    DataError
        If all rows of the dictionary are equal.
    TrainingError
        If refinement diverges.
    ComponentError
        If the model or the clusterer returns something else than its interface says.
    """
    positions, copies, transform = _dictionary_rows(rows, method, stage)
    transformed = _transformed(rows, method, positions, copies, transform)
    if copies:
        progress.note(copies.describe())
    if isinstance(method.model, TrainableCoefficientModel):
        if method.refine.steps:
            with stage("refine coefficients"):
                refine(method.model.train(), transformed, method.refine, method.seed, progress)
        method.model.eval()
    with stage("coefficients"):
        dictionary = _dictionary(rows, method, transformed)
        own = torch.arange(len(transformed), device=transformed.device)
        coefficients = dictionary.express(transformed, min(method.top_k, len(own) - 1), own)
        del transformed
        distinct_graph = graph = affinity(coefficients, method.affinity)
        if copies:
            graph = copies.spread(graph)
    clusterer, number = method.clusterer, None
    if method.recount:
        with stage("number of clusters"):
            number = _find_number(graph, distinct_graph, method)
        clusterer = method.recount(number.chosen)
    clusterer.device = method.device
    with stage("clusters"):
        chosen = number.chosen if number else method.n_clusters
        labels = _fit_clusterer(clusterer, distinct_graph, rows, positions, copies, chosen)
    with stage("confidence"):
        within = float(own_share(distinct_graph, labels).mean())
        embedding = _embedding(clusterer, distinct_graph, labels, method)
        confidence = confidence_of(distinct_graph, embedding, labels)
    assigner = _assigner(dictionary, labels, confidence, method, transform)
    agreement = None
    if method.dictionary_size:
        agreement = float((vote(coefficients, labels, confidence).labels == labels).mean())
    if copies:
        labels, confidence = labels[copies.among_distinct], confidence[copies.among_distinct]
    if method.dictionary_size:
        with stage("other rows"):
            all_labels, all_confidence = assigner.predict(rows)
        all_labels[positions], all_confidence[positions] = labels, confidence
        labels, confidence = all_labels, all_confidence
    return ClusteringResult(
        labels,
        confidence,
        within,
        graph,
        positions,
        agreement,
        method,
        clusterer,
        assigner,
        number,
        copies,
    )


def rebuild_assigner(
    rows: Rows, method: Method, labels: np.ndarray, confidence: np.ndarray, stage: Stages
) -> OutOfSampleAssigner:
    """Rebuild the assigner of an earlier :func:`cluster_rows` on the same rows.

    Parameters
    ----------
    rows : Rows
    method : Method
        With a model that has learned already.
    labels : ndarray of shape (N,)
        The clusters of all rows.
    confidence : ndarray of shape (N,)
        The confidence of all rows.
    """
    positions, copies, transform = _dictionary_rows(rows, method, stage)
    with stage("coefficients"):
        dictionary = _dictionary(rows, method, _transformed(rows, method, positions, copies, transform))
        clustered = _distinct(positions, copies)
        return _assigner(dictionary, labels[clustered], confidence[clustered], method, transform)


def _assigner(
    dictionary: Dictionary,
    labels: np.ndarray,
    confidence: np.ndarray,
    method: Method,
    transform: Callable[[Tensor], Tensor],
) -> OutOfSampleAssigner:
    return OutOfSampleAssigner(dictionary, labels, confidence, min(method.top_k, len(labels)), transform)


def _dictionary_rows(
    rows: Rows, method: Method, stage: Stages
) -> tuple[np.ndarray, Copies | None, Callable[[Tensor], Tensor]]:
    """Return the positions of the dictionary, its copies, and the map of unit-length rows to its rows."""
    positions = sample_positions(len(rows), method.dictionary_size, method.seed)
    with stage("copies"):
        copies = find_copies(rows, positions, method.seed)
    if copies and len(copies.distinct) == 1:
        raise DataError(
            f"all {len(positions)} rows, of {rows.width} feature(s), have the same direction: "
            "there is nothing to cluster"
        )
    whitened = rows
    if copies and not method.dictionary_size:
        whitened = SelectedRows(rows, _distinct(positions, copies))
    return positions, copies, _row_transform(whitened, method, stage)


def _transformed(
    rows: Rows,
    method: Method,
    positions: np.ndarray,
    copies: Copies | None,
    transform: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return the rows of the dictionary without copies, whitened if the method whitens."""
    mapped = MappedRows(rows, transform, form_width(rows.width, method.whiten))
    positions = _distinct(positions, copies)
    return mapped.held() if len(positions) == len(rows) else mapped.take(positions)


def _distinct(positions: np.ndarray, copies: Copies | None) -> np.ndarray:
    """Return the positions of the dictionary's rows without copies: these are clustered, and have a vote."""
    return positions[copies.distinct] if copies else positions


def _dictionary(rows: Rows, method: Method, transformed: Tensor) -> Dictionary:
    return Dictionary(method.model, transformed, len(rows), method.search, method.seed)


def _row_transform(rows: Rows, method: Method, stage: Stages) -> Callable[[Tensor], Tensor]:
    def moved(block: Tensor) -> Tensor:
        return block.to(method.device)

    if not method.whiten:
        return moved
    with stage("whitening"):
        form = row_form(MappedRows(rows, moved), method.whiten, method.seed)
    return lambda block: form(moved(block))


def _find_number(
    graph: sparse.csr_matrix, distinct_graph: sparse.csr_matrix, method: Method
) -> NumberOfClusters:
    """Find the number of clusters in the graph of the distinct rows; ``graph`` has the copies, too."""
    # Where hardly any rows differ, the copies are the clusters.
    searched = graph if distinct_graph.shape[0] < MIN_NODES else distinct_graph
    most = max_clusters(graph.shape[0])  # copies count: they make a cluster larger
    return find_n_clusters(searched, method.seed, method.device, most)


def _fit_clusterer(
    clusterer: Clusterer,
    graph: sparse.csr_matrix,
    rows: Rows,
    positions: np.ndarray,
    copies: Copies | None,
    n_clusters: int | None,
) -> np.ndarray:
    """Cluster the graph of the distinct rows, or the rows of the dictionary; return labels of the former."""
    if copies and n_clusters and graph.shape[0] <= n_clusters:
        return np.arange(graph.shape[0])
    if consumed(clusterer) == "affinity":
        return checked_labels(clusterer.fit_predict(graph), clusterer, graph.shape[0])
    if len(positions) < len(rows):
        rows = HeldRows(rows.take(positions))
    data = rows if getattr(clusterer, "streams", False) else rows.held().numpy()
    labels = checked_labels(clusterer.fit_predict(data), clusterer, len(rows))
    return labels[copies.distinct] if copies else labels


def _embedding(
    clusterer: Clusterer, graph: sparse.csr_matrix, labels: np.ndarray, method: Method
) -> np.ndarray:
    """Return the rows of eigenvectors in which the clusterer worked; compute them if it has none."""
    if (found := checked_embedding(clusterer, len(labels))) is not None:
        return found
    n_clusters = clusters_to_embed(max(2, int(labels.max(initial=0)) + 1), method.n_clusters)
    return graph_embedding(graph, n_clusters, method.seed, method.device)

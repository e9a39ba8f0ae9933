"""From rows to clusters: whitened, refined on, expressed by one another, cut, and the rest assigned.

Only the *dictionary*, all rows or a seeded sample of them, is held in memory and clustered. Where it is a
sample, every other row gets the cluster that most of its coefficients over the dictionary go to.
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
    """The two parts that turn rows into clusters, built, and the resolved settings of the run."""

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
    """What new rows need to join the clusters of others."""

    dictionary: Dictionary
    clusters: np.ndarray
    """``(M,)``, of the dictionary's rows; -1 for noise, which nothing joins."""
    top_k: int
    transform: Callable[[Tensor], Tensor]
    """From unit-length rows to those that express one another: on the device, whitened."""

    def assign(self, rows: Rows) -> Assigned:
        """Clusters of new rows, which change nothing for anyone else."""
        return assign(MappedRows(rows, self.transform), self.dictionary, self.clusters, self.top_k)


@dataclass(frozen=True)
class Clustered:
    """Clusters of ``N`` rows, and what new rows need to join them."""

    clusters: np.ndarray
    """``(N,)`` int64 from 0; -1 for noise."""
    confidence: np.ndarray
    """``(N,)``: of a row of the dictionary the share of its affinity that stays within its cluster, of any
    other that of its coefficients."""
    positions: np.ndarray
    """``(M,)``, the positions of the dictionary's rows."""
    graph: sparse.csr_matrix
    """``(M, M)``, their affinity."""
    agreement: float | None
    """Share of the dictionary's rows that the others would have given the cluster they are in; None where
    the dictionary is all rows, since then no row depends on it."""
    assigner: OutOfSampleAssigner
    clusterer: Clusterer
    """What has found the clusters."""
    number: NumberOfClusters | None
    """How many there are, and what else might be; None where that was given."""

    @property
    def within(self) -> float:
        """Mean share of a row's affinity that stays within its cluster, over the dictionary."""
        return float(self.confidence[self.positions].mean())


def cluster_best(
    rows: Rows, methods: Sequence[Method], stage: Stages, progress: Progress
) -> tuple[Method, list[float], Clustered]:
    """The method whose clusters keep most of the affinity within them, what each keeps, and those clusters.

    Graphs of as many coefficients a row can be compared by that; no label enters. Of equals it is the first.
    Fewer clusters keep more; so where each finds their number, it is the method whose number is more stable.
    """
    best, winner = methods[0], cluster_rows(rows, methods[0], stage, progress)
    shares = [winner.within]
    for method in methods[1:]:
        candidate = cluster_rows(rows, method, stage, progress)
        shares.append(candidate.within)
        if _merit(candidate) > _merit(winner):
            best, winner = method, candidate
    return best, shares, winner


def _merit(clustered: Clustered) -> float:
    return clustered.number.candidates[0].score if clustered.number else clustered.within


def cluster_rows(rows: Rows, method: Method, stage: Stages, progress: Progress) -> Clustered:
    """Clusters of unit-length rows ``(N, D)``, which are read in blocks and never held all at once but as a
    dictionary.
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
        clusters = _fit_clusterer(clusterer, graph, HeldRows(rows.take(positions)) if size else rows)
    confidence, agreement = metrics.confidence(graph, clusters), None
    if size:
        agreement = float((vote(coefficients, clusters).clusters == clusters).mean())
        with stage("other rows"):
            assigned = assign(transformed_rows, dictionary, clusters, method.top_k)
        assigned.clusters[positions], assigned.confidence[positions] = clusters, confidence
        clusters, confidence = assigned.clusters, assigned.confidence
    assigner = OutOfSampleAssigner(dictionary, clusters[positions], method.top_k, transform)
    return Clustered(clusters, confidence, positions, graph, agreement, assigner, clusterer, number)


def rebuild_assigner(rows: Rows, method: Method, clusters: np.ndarray, stage: Stages) -> OutOfSampleAssigner:
    """What :func:`cluster_rows` of the same rows and a model that has learned came to.

    Parameters
    ----------
    clusters : ndarray of shape (N,)
        That were found then.
    """
    positions, transform = _dictionary_rows(rows, method), _row_transform(rows, method, stage)
    with stage("coefficients"):
        transformed = MappedRows(rows, transform).take(positions)
        return OutOfSampleAssigner(
            _dictionary(rows, method, transformed), clusters[positions], method.top_k, transform
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

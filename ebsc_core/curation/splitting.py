"""Cut one cluster into parts, without fitting anything anew.

The cluster's part of the saved affinity is cut by spectral clustering, as the default clusterer cuts the
whole. Rows that are not in the affinity, because the run clustered a sample, join the part that gets most of
their coefficients.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ebsc_core.clustering.spectral.embedding import graph_embedding
from ebsc_core.clustering.spectral.kmeans import kmeans
from ebsc_core.curation.graph import Graph, required_graph
from ebsc_core.data.features.rows import HeldRows
from ebsc_core.plugins.registry import Registry
from ebsc_core.runs.predict import Predictor
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.device import prepare, resolve_device
from ebsc_core.utils.errors import ConfigError
from ebsc_core.utils.progress import Progress

STARTS = 10
# Rows of a sample's cluster that are read and assigned at once.
BLOCK = 65_536


def parts_of(
    run: SavedRun, number: int, into: int, registry: Registry, progress: Progress
) -> list[np.ndarray]:
    """Return the positions in ``assignments.csv`` of each part, ascending.

    Raises
    ------
    ConfigError
        If the cluster has too few different images, or images that the run held out: it has kept no features
        of those.
    RunDirectoryError
        If the run has no affinity.
    """
    clusters, fitted = run.curated.clusters, run.assignments.fitted
    held_out = int((clusters[fitted:] == number).sum())
    if held_out:
        raise ConfigError(
            f"cluster {number} holds {held_out} images that the run held out, and it kept no features of "
            "them that say which part they belong to; repeat the run with `protocol=all`"
        )
    graph = required_graph(run, "a split")
    members = np.flatnonzero(graph.clusters == number)
    cut = _cut(graph, members, into, run.config.seed)
    if len(np.unique(cut)) < into:
        raise ConfigError(
            f"cluster {number} cannot be cut into {into} parts: only {len(members)} of its images are in the "
            "affinity, or too few of them differ"
        )
    labels = np.full(len(clusters), -1)
    labels[graph.positions[members]] = cut
    others = np.setdiff1d(np.flatnonzero(clusters == number), graph.positions[members])
    if len(others):
        progress.note(f"{len(others)} images outside the clustered sample join the part that expresses them")
        for rows, joined in _joined(run, labels[:fitted], others, registry, progress):
            # What no part expresses stays with most of the cluster.
            labels[rows] = np.where(joined >= 0, joined, np.bincount(cut).argmax())
    return [np.flatnonzero(labels == part) for part in range(into)]


def _cut(graph: Graph, members: np.ndarray, into: int, seed: int) -> np.ndarray:
    """Return the part of each of these rows of the graph, from 0."""
    if len(members) < into:
        return np.zeros(len(members), np.int64)
    inside = graph.matrix[members][:, members].tocsr()
    return kmeans(graph_embedding(inside, into, seed), into, STARTS, seed, graph=inside)


def _joined(
    run: SavedRun, labels: np.ndarray, others: np.ndarray, registry: Registry, progress: Progress
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield positions of rows outside the sample, and the part that each of them joins."""
    device = resolve_device("auto")
    prepare(device)
    assigner = Predictor(run, registry, device, progress, labels).assigner
    for start in range(0, len(others), BLOCK):
        rows = others[start : start + BLOCK]
        yield rows, assigner.predict(HeldRows(run.rows.take(rows)))[0]

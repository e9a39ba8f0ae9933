"""Describe each cluster: size, confidence, typical images, and the cluster that it leans to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ebsc_core.runs.store.graph import Graph
from ebsc_core.runs.store.saved import SavedRun


@dataclass(frozen=True)
class Cluster:
    """Describe one cluster of the fitted images."""

    number: int
    size: int
    """The number of fitted images in the cluster."""
    confidence: float
    """The mean confidence of these images."""
    label: str | None
    """The most frequent class of these images, if the classes are known."""
    purity: float | None
    """The share of the images that belong to this class."""
    typical: np.ndarray
    """The positions of typical images; the image with the highest confidence comes first."""
    doubtful: np.ndarray
    """The positions of doubtful images; the image with the lowest confidence comes first. None is in
    ``typical``."""
    leans: int | None
    """The other cluster that gets the largest share of the affinity, if any cluster does."""
    leak: float
    """The share of the affinity that goes to the cluster ``leans``."""


@dataclass(frozen=True)
class Tie:
    """Hold the share of one cluster's affinity that goes to another cluster."""

    cluster: int
    other: int
    share: float


def own_affinity(graph: Graph) -> np.ndarray:
    """Return the sum ``(M,)`` of each row's affinity to its own cluster, not as a share."""
    rows = np.repeat(np.arange(len(graph.clusters)), np.diff(graph.matrix.indptr))
    same = (graph.clusters[rows] == graph.clusters[graph.matrix.indices]) & (graph.clusters[rows] >= 0)
    return np.bincount(rows, weights=graph.matrix.data * same, minlength=len(graph.clusters))


def between(graph: Graph, k: int) -> np.ndarray:
    """Return ``(K, K)``: the share of a cluster's affinity (row) that goes to each cluster (column).

    The row of a cluster without affinity is zero. Images of no cluster are left out.
    """
    rows = np.repeat(graph.clusters, np.diff(graph.matrix.indptr))
    columns = graph.clusters[graph.matrix.indices]
    inside = (rows >= 0) & (columns >= 0)
    mass = sparse.coo_matrix((graph.matrix.data[inside], (rows[inside], columns[inside])), shape=(k, k))
    dense = mass.toarray().astype(np.float64)
    total = dense.sum(axis=1, keepdims=True)
    return np.divide(dense, total, out=np.zeros_like(dense), where=total > 0)


def ties(shares: np.ndarray, most: int) -> list[Tie]:
    """Return the largest of the shares ``(K, K)`` that go to another cluster, in descending order."""
    others = shares * (1 - np.eye(len(shares)))
    order = np.argsort(-others, axis=None, kind="stable")[:most]
    places = (divmod(int(place), len(shares)) for place in order)
    return [Tie(i, j, float(others[i, j])) for i, j in places if others[i, j] > 0]


def describe(
    run: SavedRun, graph: Graph | None, leaning: np.ndarray | None, pictures: int, most: int
) -> list[Cluster]:
    """Describe the ``most`` largest clusters, in the order of their numbers.

    Each has up to ``pictures`` images to show, with two typical images for each doubtful one. ``leaning``
    is the result of :func:`between`, if it is known.
    """
    found = run.assignments
    clusters, confidence = found.clusters[: found.fitted], found.confidence[: found.fitted]
    sizes = np.bincount(clusters[clusters >= 0])
    largest = np.sort(np.argsort(-sizes, kind="stable")[:most])
    mass = np.zeros(found.fitted)
    if graph is not None:
        mass[graph.positions] = own_affinity(graph)
    result = []
    for number in largest.tolist():
        members = np.flatnonzero(clusters == number)
        if not len(members):
            continue
        label, purity = _dominant([found.labels[i] for i in members]) if found.labels else (None, None)
        leans, leak = _leans(leaning[number], number) if leaning is not None else (None, 0.0)
        best, worst = _exemplary(members, confidence, mass, pictures)
        result.append(
            Cluster(
                number=number,
                size=len(members),
                confidence=float(confidence[members].mean()),
                label=label,
                purity=purity,
                typical=best,
                doubtful=worst,
                leans=leans,
                leak=leak,
            )
        )
    return result


def _exemplary(
    members: np.ndarray, confidence: np.ndarray, mass: np.ndarray, pictures: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the most typical of these positions, and the most doubtful of the others.

    Of equal confidence, the image with the larger affinity to the cluster is the more typical one.
    """
    order = members[np.lexsort((-mass[members], -confidence[members]))]
    n_typical = min(-(-2 * pictures // 3), -(-2 * len(members) // 3))
    return order[:n_typical], order[n_typical:][::-1][: pictures - n_typical]


def _dominant(labels: list[str]) -> tuple[str, float]:
    names, counts = np.unique(np.array(labels, dtype=object), return_counts=True)
    best = int(counts.argmax())
    return str(names[best]), float(counts[best] / len(labels))


def _leans(shares: np.ndarray, number: int) -> tuple[int | None, float]:
    others = shares.copy()
    others[number] = 0
    best = int(others.argmax())
    return (best, float(others[best])) if others[best] > 0 else (None, 0.0)

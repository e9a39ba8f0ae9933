"""What can be said of each cluster: size, confidence, which images are typical of it, where it leans."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.sampling import sample_positions


@dataclass(frozen=True)
class Cluster:
    """One cluster of the fitted images."""

    number: int
    size: int
    """Fitted images in it."""
    confidence: float
    """Mean of theirs."""
    label: str | None
    """The most frequent class of them, where classes are known."""
    purity: float | None
    """Share of its images that are of that class."""
    typical: np.ndarray
    """Positions, the image with the largest affinity to the cluster first."""
    doubtful: np.ndarray
    """Positions, the image with the lowest confidence first; none that is in ``typical``."""
    leans: int | None
    """The other cluster that most of its affinity goes to, if any does."""
    leak: float
    """Share of its affinity that goes there."""


@dataclass(frozen=True)
class Tie:
    """Affinity of one cluster that goes to another."""

    cluster: int
    other: int
    share: float


@dataclass(frozen=True)
class Graph:
    """The affinity with what it is about."""

    matrix: sparse.csr_matrix
    """``(M, M)``."""
    positions: np.ndarray
    """``(M,)``, where its rows stand in ``assignments.csv``."""
    clusters: np.ndarray
    """``(M,)``, of its rows."""


def graph_of(run: SavedRun) -> Graph | None:
    """The affinity of a run, or None if it was not kept or is not of the images that it says."""
    matrix, found = run.affinity, run.assignments
    if matrix is None:
        return None
    size = run.metrics.get("dictionary_size")
    positions = sample_positions(found.fitted, size, run.config.seed)
    if matrix.shape != (len(positions), len(positions)):
        return None
    return Graph(matrix, positions, found.clusters[positions])


def own_affinity(graph: Graph) -> np.ndarray:
    """``(M,)``, how much of each row's affinity goes to its own cluster, not as a share."""
    rows = np.repeat(np.arange(len(graph.clusters)), np.diff(graph.matrix.indptr))
    same = (graph.clusters[rows] == graph.clusters[graph.matrix.indices]) & (graph.clusters[rows] >= 0)
    return np.bincount(rows, weights=graph.matrix.data * same, minlength=len(graph.clusters))


def between(graph: Graph, k: int) -> np.ndarray:
    """``(K, K)``: of a cluster's affinity, the share that goes to each; rows of zeros where there is none.

    Images of no cluster are left out.
    """
    rows = np.repeat(graph.clusters, np.diff(graph.matrix.indptr))
    columns = graph.clusters[graph.matrix.indices]
    inside = (rows >= 0) & (columns >= 0)
    mass = sparse.coo_matrix((graph.matrix.data[inside], (rows[inside], columns[inside])), shape=(k, k))
    dense = mass.toarray().astype(np.float64)
    total = dense.sum(axis=1, keepdims=True)
    return np.divide(dense, total, out=np.zeros_like(dense), where=total > 0)


def ties(shares: np.ndarray, most: int) -> list[Tie]:
    """The largest shares ``(K, K)`` that go to another cluster, the largest first."""
    others = shares * (1 - np.eye(len(shares)))
    order = np.argsort(-others, axis=None, kind="stable")[:most]
    places = (divmod(int(place), len(shares)) for place in order)
    return [Tie(i, j, float(others[i, j])) for i, j in places if others[i, j] > 0]


def describe(
    run: SavedRun, graph: Graph | None, leaning: np.ndarray | None, pictures: int, most: int
) -> list[Cluster]:
    """The ``most`` largest clusters, by number, each with so many ``pictures`` to show: two typical ones to
    each doubtful one; ``leaning`` is what :func:`between` returns, if it is known.
    """
    found = run.assignments
    clusters, confidence = found.clusters[: found.fitted], found.confidence[: found.fitted]
    sizes = np.bincount(clusters[clusters >= 0])
    largest = np.sort(np.argsort(-sizes, kind="stable")[:most])
    typical = np.full(found.fitted, -np.inf)
    if graph is None:
        typical[:] = confidence
    else:
        typical[graph.positions] = own_affinity(graph)
    result = []
    for number in largest.tolist():
        members = np.flatnonzero(clusters == number)
        if not len(members):
            continue
        label, purity = _dominant([found.labels[i] for i in members]) if found.labels else (None, None)
        leans, leak = _leans(leaning[number], number) if leaning is not None else (None, 0.0)
        best, worst = _exemplary(members, typical, confidence, pictures)
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
    members: np.ndarray, typical: np.ndarray, confidence: np.ndarray, pictures: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of these positions the most typical, and of the others the most doubtful."""
    by_affinity = members[np.argsort(-typical[members], kind="stable")]
    n_typical = min(-(-2 * pictures // 3), -(-2 * len(members) // 3))
    best = by_affinity[:n_typical]
    rest = np.setdiff1d(members, best, assume_unique=True)
    return best, rest[np.argsort(confidence[rest], kind="stable")][: pictures - n_typical]


def _dominant(labels: list[str]) -> tuple[str, float]:
    names, counts = np.unique(np.array(labels, dtype=object), return_counts=True)
    best = int(counts.argmax())
    return str(names[best]), float(counts[best] / len(labels))


def _leans(shares: np.ndarray, number: int) -> tuple[int | None, float]:
    others = shares.copy()
    others[number] = 0
    best = int(others.argmax())
    return (best, float(others[best])) if others[best] > 0 else (None, 0.0)

"""Rank the images of a run by how little they belong to the others, with reasons.

The distance to the nearest neighbours is the plainest measure of an outlier that there is (Ramaswamy, Rastogi
and Shim, SIGMOD 2000), and its ratio to that of the neighbours allows for dense and sparse regions (the idea
of the local outlier factor: Breunig et al., SIGMOD 2000). Each alone fails: the first where a whole cluster
is sparse, the second where a handful of foreign images are neighbours of each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ebsc_core.clustering.copies import find_copies
from ebsc_core.config.schema import SearchOptions
from ebsc_core.curation.graph import Graph, graph_of
from ebsc_core.curation.neighbors import check_top, nearest
from ebsc_core.data.features.rows import Rows
from ebsc_core.runs.store.saved import SavedRun

NEIGHBORS = 20
# From these ratios, and up to this share, a figure is a reason.
FAR, FARTHER, TORN = 1.2, 1.1, 0.5
# What is said of an image without any reason.
UNMARKED = "the next one, without a mark of its own"
# Equal rows have no distance to divide by.
TINY = 1e-6


@dataclass(frozen=True)
class Outlier:
    """Hold how little an image belongs to the others."""

    position: int
    """The position in the run."""
    image: str
    """The name."""
    cluster: int
    """-1 for none."""
    score: float
    """The product of ``distance`` and ``relative``; about 1 for most images."""
    distance: float
    """The mean distance to the nearest neighbours, as a multiple of the median of all images."""
    relative: float
    """The same, as a multiple of the mean of these neighbours."""
    own_share: float | None
    """The share of its affinity in its own cluster; None if the run has no affinity of it."""
    other: int | None
    """The other cluster with most of its affinity, if any."""
    other_share: float | None
    why: str
    """The reasons, on one line."""


def find_outliers(run: SavedRun, top: int) -> list[Outlier]:
    """Rank the fitted images of a run, the strongest outlier first, without those moved to no cluster.

    Raises
    ------
    ConfigError
        If ``top`` is no whole number from 1.
    RunDirectoryError
        If a file of the run is damaged.
    """
    check_top(top)  # before the graph is read
    found, curated = run.assignments, run.curated
    fitted = slice(found.fitted)
    aside = curated.by_hand & (curated.clusters < 0)
    ranked = rank_outliers(
        run.rows,
        found.ids[fitted],
        curated.clusters[fitted],
        graph_of(run),
        top + int(aside.sum()),
        run.config.search,
        run.config.seed,
        curated.called,
    )
    return [one for one in ranked if not aside[one.position]][:top]


def rank_outliers(
    rows: Rows,
    names: Any,
    clusters: np.ndarray,
    graph: Graph | None,
    top: int,
    search: SearchOptions | None = None,
    seed: int = 0,
    called: Callable[[int], str] = str,
) -> list[Outlier]:
    """Rank ``N`` rows of unit length with their names, clusters ``(N,)`` and affinity, as above.

    ``called`` returns what the reasons call a cluster.
    """
    check_top(top)
    distance, relative = isolation(rows, search or SearchOptions(), seed)
    score = distance * relative
    chosen = np.argsort(-score, kind="stable")[:top]
    shares = _shares(graph, chosen)
    return [
        _described(
            at,
            names[at],
            int(clusters[at]),
            float(distance[at]),
            float(relative[at]),
            shares.get(at),
            called,
        )
        for at in chosen.tolist()
    ]


def isolation(rows: Rows, search: SearchOptions, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Measure how far each row is from its nearest neighbours.

    Copies count once: otherwise each would be its copies' nearest neighbour, at no distance at all.

    Returns
    -------
    distance : ndarray of shape (N,)
        The mean distance to them, as a multiple of the median of all rows.
    relative : ndarray of shape (N,)
        The mean distance to them, as a multiple of the mean of the same figure of theirs.
    """
    copies = find_copies(rows, np.arange(len(rows)), seed)
    if copies is None:
        return _isolation(rows.held(), search, seed)
    distance, relative = _isolation(rows.held()[torch.from_numpy(copies.distinct)], search, seed)
    return distance[copies.among_distinct], relative[copies.among_distinct]


def _isolation(rows: Tensor, search: SearchOptions, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Measure the same among distinct rows."""
    if len(rows) < 2:
        return np.zeros(len(rows)), np.zeros(len(rows))
    found = nearest(rows, NEIGHBORS, search, seed)
    cosines = found.scores.double().clamp(-1, 1)  # a search in cells may find fewer: those are opposite
    apart = (2 - 2 * cosines).sqrt().mean(dim=1).numpy()
    there = (found.scores > -torch.inf).numpy()  # those that are missing have no place
    sums, counts = (apart[found.indices.numpy()] * there).sum(axis=1), there.sum(axis=1)
    theirs = np.where(counts > 0, sums / np.maximum(counts, 1), apart)
    return apart / max(np.median(apart), TINY), apart / np.maximum(theirs, TINY)


def _shares(graph: Graph | None, chosen: np.ndarray) -> dict[int, tuple[float, int | None, float]]:
    """Return own share, the other cluster and its share, of those chosen that have any affinity."""
    if graph is None:
        return {}
    places = np.searchsorted(graph.positions, chosen)
    inside = places < len(graph.positions)
    inside[inside] = graph.positions[places[inside]] == chosen[inside]
    result = {}
    for at, place in zip(chosen[inside].tolist(), places[inside].tolist(), strict=True):
        row = graph.matrix[[place]]
        if row.nnz:
            result[at] = _share(row, graph.clusters, int(graph.clusters[place]))
    return result


def _share(row: sparse.csr_matrix, clusters: np.ndarray, own: int) -> tuple[float, int | None, float]:
    of = clusters[row.indices]
    weights = np.bincount(of[of >= 0], row.data[of >= 0], minlength=max(own, 0) + 1) / row.data.sum()
    mine = float(weights[own]) if own >= 0 else 0.0
    if own >= 0:
        weights[own] = 0
    other = int(weights.argmax())
    return (mine, other, float(weights[other])) if weights[other] > 0 else (mine, None, 0.0)


def _described(
    position: int,
    image: str,
    cluster: int,
    distance: float,
    relative: float,
    shares: tuple[float, int | None, float] | None,
    called: Callable[[int], str],
) -> Outlier:
    own, other, others = shares or (None, None, None)
    why = []
    if distance >= FAR:
        why.append(f"{distance:.1f} times as far from its neighbours as the median image")
    if relative >= FARTHER:
        why.append(f"{relative:.1f} times as far as these neighbours from theirs")
    if cluster < 0:
        why.append("in no cluster")
    elif own is not None and own <= TORN and other is not None:
        why.append(f"{own:.0%} of its affinity in its own cluster, {others:.0%} in cluster {called(other)}")
    elif own is not None and own <= TORN:
        why.append(f"{own:.0%} of its affinity in its own cluster")
    return Outlier(
        position=position,
        image=image,
        cluster=cluster,
        score=round(distance * relative, 4),
        distance=round(distance, 4),
        relative=round(relative, 4),
        own_share=None if own is None else round(own, 4),
        other=other,
        other_share=None if own is None else round(others or 0.0, 4),
        why="; ".join(why) or UNMARKED,
    )

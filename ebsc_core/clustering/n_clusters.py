"""Find the number of clusters of a graph: the number whose clusters stay the same when edge weights vary.

Numbers from 2 up to a bound are tried. If the best is near the bound, or the graph has more pieces that are
nearly separate, the bound rises. The graph is perturbed a few times: each edge is multiplied by a draw from
the exponential distribution (Rubin, "The Bayesian bootstrap", Ann. Statist. 9, 1981, applied here to edges).
Each perturbed graph is partitioned again. The *stability* of a number is the mean adjusted Rand index over
all pairs of these clusterings (Ben-Hur, Elisseeff, Guyon, "A stability based method for discovering structure
in clustered data", PSB 2002; von Luxburg, "Clustering stability: an overview", 2010). A stable number may
still be too small (ibid.).
Therefore:

- The score of a number combines its stability and that of its better neighbour, three to two. If there are
  K clusters, then K - 1 or K + 1 clusters change the rows of one cluster only, so they are stable as well. A
  number that is too small has no stable neighbour.
- If several scores are equal, the *eigengap* decides: ``λ_K^t - λ_{K+1}^t`` of the normalised affinity, at
  the time t after which the first eigenvalue beyond the bound has shrunk to 1/e (Azran and Ghahramani,
  "Spectral methods for automatic multiscale data clustering", CVPR 2006, look at all times).
- If two neighbouring numbers are equal, the smaller one wins, unless its gap is small compared with the
  other gap. A class with two styles can be split in two as stably as not, but its pieces are connected.
  Pieces that are not connected leave no gap between them.

The eigengap alone is misled by fragments and sub-styles; see ``docs/decisions.md``. No label
enters. If there are many rows, a coarser graph is examined.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import ceil
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from ebsc_core.clustering.spectral.coarsening import coarsened
from ebsc_core.clustering.spectral.eigenvectors import Eigenpairs, leading_eigenpairs
from ebsc_core.clustering.spectral.embedding import VECTORS_PER_CLUSTER, eigenvalue_weights, weighted_rows
from ebsc_core.clustering.spectral.kmeans import kmeans

# The most that are considered, and the rows that a cluster has on average then: with fewer than the least
# coefficients a row keeps, it would have to look for neighbours elsewhere.
MAX_CLUSTERS, MIN_MEAN_SIZE = 300, 5
# Numbers up to this one are considered at first, then half as many more at a time, until the best is far
# below the bound.
FIRST_BOUND, GROWTH, BEYOND_BEST = 50, 1.5, 1.25
# There are as many nearly separate pieces as eigenvalues from this one on: in a step, a walk leaves such a
# piece less often than one time in twenty.
NEARLY_SEPARATE = 0.95
# Up to this number all are tried, then those a tenth apart, and at last some around the best.
ALL_UP_TO, STEP = 20, 1.1
# Graphs of more nodes are joined into coarser ones until they have no more.
NODES = 5000
RESAMPLES, STARTS = 12, 5
# Of more clusters than ALL_UP_TO, the agreement varies less.
RESAMPLES_OF_MANY = 4
TOLERANCE = 3e-3
# Of a number's own stability in its score; the rest is its better neighbour's.
OWN = 0.6
# Scores that differ by less are equal; those that differ by less than the second are near.
EQUAL, NEAR = 0.005, 0.02
# Numbers that differ by at most this share are one answer.
ALIKE = 0.05
# A gap that is a smaller part than this of another's is nothing beside it.
FAINT = 0.25
# Below the first, no number's clusters come out again; from the second on, so few clusters are no doubt.
UNSTABLE, CLEAR, COARSE = 0.8, 0.95, 3
# Two peaks of stability are apart if it falls by so much between them.
WORSE = 0.1


@dataclass(frozen=True)
class Candidate:
    """Describe a number of clusters and the evidence for it."""

    k: int
    stability: float
    """The mean adjusted Rand index between clusterings of perturbed graphs; 1 if all agree."""
    score: float
    """Its own stability and that of its better neighbour, weighted three to two."""
    eigengap: float
    """The eigengap ``λ_K^t - λ_{K+1}^t``."""


@dataclass(frozen=True)
class NumberOfClusters:
    """Hold the number of clusters that was found, and the alternatives."""

    candidates: tuple[Candidate, ...]
    """All numbers that were tried, the best first."""
    time: float
    """The power t of the eigengaps."""
    eigenvalues: np.ndarray
    """The leading eigenvalues of the examined graph, descending, one more than the largest number tried."""
    nodes: int
    """The number of nodes of the examined graph."""
    most: int = MAX_CLUSTERS
    """The largest number that would have been tried."""

    @property
    def chosen(self) -> int:
        """The number of clusters."""
        return self.candidates[0].k

    @property
    def runners_up(self) -> tuple[Candidate, ...]:
        """The next best numbers, at most four."""
        return self.candidates[1:5]

    def record(self) -> dict[str, Any]:
        """Return plain values for ``metrics.json``."""
        return {
            "chosen": self.chosen,
            "candidates": [
                {name: round(value, 6) for name, value in asdict(candidate).items()}
                for candidate in self.candidates
            ],
            "eigengap_time": round(self.time, 3),
            "eigenvalues": [round(float(value), 6) for value in self.eigenvalues],
            "nodes": self.nodes,
        }

    def said(self) -> str:
        """Return one line with the number, the next ones, and the rule that ranked them."""
        best, *others = (f"{c.k} ({c.score:.3f})" for c in (self.candidates[0], *self.runners_up))
        line = f"number of clusters, with its score: {best}"
        if others:
            line += f"; after it come {', '.join(others)}"
        if self.candidates[0].score < max(candidate.score for candidate in self.candidates):
            line += f"; of scores within {EQUAL} of the highest, the eigengap decides"
        return line

    def doubts(self) -> list[str]:
        """Return sentences for the user if the number is not clear."""
        best, largest = self.candidates[0], max(candidate.k for candidate in self.candidates)
        # A few clusters more or less are hardly another answer if there are many.
        apart = max(1, ALIKE * best.k)
        others = [c for c in self.runners_up if abs(c.k - best.k) > apart and best.score - c.score < NEAR]
        doubts = []
        if best.stability < UNSTABLE:
            doubts.append(
                f"the number of clusters is not stable: with {best.k}, two clusterings agree to "
                f"{best.stability:.2f} only (1 is full agreement)"
            )
        elif others:
            also = " or ".join(f"{other.k} ({other.score:.3f})" for other in others)
            doubts.append(
                f"the number of clusters is not clear: the score of {best.k} ({best.score:.3f}) is hardly "
                f"different from that of {also}"
            )
        if finer := self._finer():
            doubts.append(
                f"{best.k} clusters may be a coarse cut: {finer.k} come out again, too (an agreement of "
                f"{finer.stability:.2f})"
            )
        elif best.k <= COARSE and UNSTABLE <= best.stability < CLEAR:
            doubts.append(f"{best.k} clusters may be a coarse cut: there may be groups within them")
        if BEYOND_BEST * best.k > largest == self.most > 2:
            doubts.append(f"no number of clusters above {largest} was tried; there may be more")
        return [f"{sentence}; `n_clusters` decides it" for sentence in doubts]

    def _finer(self) -> Candidate | None:
        """Return the stablest number that is at least twice the best, if its clusters come out again, too.

        Numbers between them must be less stable by ``WORSE``: stability may just fade slowly.
        """
        larger = [each for each in self.candidates if each.k >= 2 * self.chosen]
        finer = max(larger, key=lambda candidate: candidate.stability, default=None)
        if finer is None or finer.stability < UNSTABLE:
            return None
        between = [each.stability for each in self.candidates if self.chosen < each.k < finer.k]
        return finer if min(between, default=1) <= finer.stability - WORSE else None


def find_n_clusters(
    graph: sparse.csr_matrix, seed: int = 0, device: str | torch.device = "cpu", most: int | None = None
) -> NumberOfClusters:
    """Find the number of clusters of a graph.

    Parameters
    ----------
    graph : csr_matrix of shape (N, N)
        Symmetric, non-negative affinity of at least two rows.
    seed : int
        Seed of the perturbations and of k-means. The same seed gives the same number.
    device : str or device
        The device that computes eigenvectors.
    most : int, optional
        The largest number to try. By default as many as :func:`max_clusters` says of N rows.

    Raises
    ------
    ValueError
        If there are fewer than two rows.
    """
    n = graph.shape[0]
    if n < 2:
        raise ValueError(f"{n} rows have no clusters")
    most = most or max_clusters(n)
    graph, sizes = _small(graph)
    most = min(most, graph.shape[0])
    draws = np.random.default_rng(seed)
    graphs = [graph, *(perturbed(graph, draws) for _ in range(RESAMPLES))]
    (pieces, fragments), bound = _pieces(graph, sizes), min(most, FIRST_BOUND)
    stability: dict[int, float] = {}
    while True:
        n_vectors = min(max(2 * bound, VECTORS_PER_CLUSTER), graph.shape[0])
        # The small numbers, which need all graphs, are tried first.
        needed = graphs[: RESAMPLES_OF_MANY + 1] if stability else graphs
        pairs = [
            leading_eigenpairs(each, n_vectors, seed + number, TOLERANCE, device=device)
            for number, each in enumerate(needed)
        ]
        eigenvalues = pairs[0].values[: bound + 1]
        gaps, time = eigengaps(eigenvalues)
        wanted = _spread(bound) - stability.keys()
        while wanted:
            for k in sorted(wanted):
                compared = pairs if k <= ALL_UP_TO else pairs[: RESAMPLES_OF_MANY + 1]
                stability[k] = _stability(compared, k, sizes, seed)
            candidates = ranked(
                [Candidate(k, s, _score(stability, k), _gap(gaps, k)) for k, s in stability.items()]
            )
            wanted = _between(candidates[0].k, stability) - stability.keys()
        nearly = int((pairs[0].values >= NEARLY_SEPARATE).sum()) - fragments
        pieces = max(pieces, nearly)
        if bound == most or bound >= max(STEP * pieces, BEYOND_BEST * candidates[0].k):
            return NumberOfClusters(tuple(candidates), time, eigenvalues, graph.shape[0], most)
        bound = min(most, ceil(max(GROWTH * bound, STEP * pieces)))


def max_clusters(n_rows: int) -> int:
    """Return the largest number of clusters to try: 300, or fewer if their mean size would be below 5."""
    return max(2, min(MAX_CLUSTERS, n_rows // MIN_MEAN_SIZE))


def clusters_to_embed(found: int, given: int | None) -> int:
    """Return for how many clusters eigenvectors are computed: 50 at most, unless more were asked for.

    A clusterer that finds hundreds of clusters of its own accord would need thousands of vectors.
    """
    return min(found, max(FIRST_BOUND, given or 0))


def perturbed(graph: sparse.csr_matrix, draws: np.random.Generator) -> sparse.csr_matrix:
    """Multiply each edge of the symmetric graph by a draw from an exponential distribution of mean 1."""
    upper = sparse.triu(graph, format="csr")
    upper.data = upper.data * draws.exponential(size=len(upper.data)).astype(np.float32)
    both = sparse.csr_matrix(upper + sparse.triu(upper, 1).T)
    both.sort_indices()
    return both


def eigengaps(eigenvalues: np.ndarray) -> tuple[np.ndarray, float]:
    """Compute ``λ_K^t - λ_{K+1}^t`` for each K from 1 on, and the t at which the last eigenvalue is 1/e.

    Parameters
    ----------
    eigenvalues : ndarray of shape (m,)
        In descending order.
    """
    values = np.clip(eigenvalues.astype(np.float64), 1e-12, 1)
    # Where the last is 1, too, all differences are noise, at whatever time.
    time = 1 / max(-np.log(values[-1]), 1e-6)
    return -np.diff(values**time), float(time)


def rand_index(first: np.ndarray, second: np.ndarray, sizes: np.ndarray) -> float:
    """Compute the adjusted Rand index (Hubert and Arabie 1985) of two clusterings of weighted nodes.

    A node stands for several rows. The result equals scikit-learn's ``adjusted_rand_score`` on these rows;
    that function takes no weights.

    Parameters
    ----------
    first, second : ndarray of shape (M,)
        Clusters, counted from 0.
    sizes : ndarray of shape (M,)
        The number of rows that each node stands for.
    """
    shape = int(first.max()) + 1, int(second.max()) + 1
    table = np.bincount(first * shape[1] + second, sizes, shape[0] * shape[1]).reshape(shape)
    both, one, other, all_ = (
        float((counts * (counts - 1)).sum()) for counts in (table, table.sum(1), table.sum(0), table.sum())
    )
    expected, most = one * other / max(all_, 1), (one + other) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


def _small(graph: sparse.csr_matrix) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Coarsen the graph until it is small enough; also return how many rows each node stands for."""
    sizes: np.ndarray = np.ones(graph.shape[0])
    while graph.shape[0] > NODES:
        coarse, aggregate = coarsened(graph)
        if coarse.shape[0] > 0.9 * graph.shape[0]:
            break
        sizes = np.bincount(aggregate, sizes, coarse.shape[0])
        graph = coarse
    return graph, sizes


def _stability(pairs: Sequence[Eigenpairs], k: int, sizes: np.ndarray, seed: int) -> float:
    found = [_cut(each, k, (seed + number) % 2**32) for number, each in enumerate(pairs)]
    return float(np.mean([rand_index(a, b, sizes) for a, b in combinations(found, 2)]))


def _cut(pairs: Eigenpairs, k: int, seed: int) -> np.ndarray:
    """Find ``k`` clusters as the default clusterer does, by inertia alone."""
    weights = eigenvalue_weights(pairs.values[: VECTORS_PER_CLUSTER * k], k)
    rows = weighted_rows(pairs.vectors[:, : len(weights)], weights)
    # Merging goes the same way in each perturbed graph, so that wrong numbers would look stable, too.
    return kmeans(rows, k, STARTS, seed, merging=False)


def _pieces(graph: sparse.csr_matrix, sizes: np.ndarray) -> tuple[int, int]:
    """Count the connected pieces with as many rows as a cluster needs on average, and the smaller ones."""
    count, piece = connected_components(graph, directed=False)
    large = int((np.bincount(piece, sizes) >= MIN_MEAN_SIZE).sum())
    return large, int(count) - large


def _spread(bound: int) -> set[int]:
    """Return the numbers that are tried first: all that are small, then each a tenth larger; ``bound``, too.

    A cluster more or less moves fewer of the rows, the more clusters there are.
    """
    numbers = list(range(2, min(ALL_UP_TO, bound) + 1))
    while (larger := round(STEP * numbers[-1])) < bound:
        numbers.append(larger)
    return {*numbers, bound}


def _between(best: int, tried: Collection[int]) -> set[int]:
    """Return the numbers midway between the best and those that were tried before and after it."""
    before = max((k for k in tried if k < best), default=best)
    after = min((k for k in tried if k > best), default=best)
    return {(before + best) // 2, (best + after + 1) // 2}


def _score(stability: dict[int, float], k: int) -> float:
    """Weigh the stability of a number and of its better neighbour among those that were tried."""
    before = max((other for other in stability if other < k), default=k)
    after = min((other for other in stability if other > k), default=k)
    return OWN * stability[k] + (1 - OWN) * max(stability[other] for other in {before, after} - {k} or {k})


def _gap(gaps: np.ndarray, k: int) -> float:
    return float(gaps[k - 1]) if k <= len(gaps) else 0.0  # there are no more vectors than rows


def ranked(candidates: list[Candidate]) -> list[Candidate]:
    """Sort by score; if several candidates equal the best one, the eigengap decides among them."""
    found = sorted(candidates, key=lambda candidate: -candidate.score)
    equal = {each.k: each for each in found if found[0].score - each.score <= EQUAL}
    best = max(equal.values(), key=lambda candidate: candidate.eigengap)
    while (less := equal.get(best.k - 1)) and less.eigengap >= FAINT * best.eigengap:
        best = less
    return [best, *(candidate for candidate in found if candidate is not best)]

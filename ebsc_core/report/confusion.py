"""Clusters beside known classes: who is matched to whom, what each match is worth, and what went wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from ebsc_core.runs.store.saved import Assignments


@dataclass(frozen=True)
class ClassFigures:
    """How well a class was found; its cluster's figures, or zeros where no cluster is matched to it."""

    name: str
    size: int
    cluster: int | None
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Confusion:
    """Images of a class that lie in a cluster matched to another."""

    label: str
    cluster: int
    taken_for: str | None
    """The class that the cluster is matched to, if to any."""
    count: int
    positions: np.ndarray
    """Of some of them, the most confident first."""


@dataclass(frozen=True)
class Comparison:
    """The scored images, class by cluster, after the best one-to-one assignment."""

    classes: list[str]
    clusters: list[int]
    """-1, for images of no cluster, comes last if there are any."""
    counts: np.ndarray
    """``(len(classes), len(clusters))``; matched pairs stand on the diagonal."""
    figures: list[ClassFigures]
    matched: dict[int, str]
    """The class of each cluster that has one."""
    accuracy: float
    scored: np.ndarray
    """Positions of the images that are scored."""
    wrong: np.ndarray
    """Positions of those that are not in the cluster of their class."""


def compare(assignments: Assignments) -> Comparison | None:
    """The scored images (those held out, if any were) beside their classes; None if these are not known."""
    if assignments.labels is None:
        return None
    scored = np.arange(
        assignments.fitted if assignments.fitted < len(assignments.ids) else 0, len(assignments.ids)
    )
    labels = [assignments.labels[i] for i in scored]
    classes = sorted(set(labels), key=_natural)
    number = {name: i for i, name in enumerate(classes)}
    of_class = np.array([number[label] for label in labels], dtype=np.int64)
    clusters, column = np.unique(assignments.clusters[scored], return_inverse=True)
    counts = np.zeros((len(classes), len(clusters)), dtype=np.int64)
    np.add.at(counts, (of_class, column), 1)

    named = np.flatnonzero(clusters >= 0)
    rows, columns = linear_sum_assignment(counts[:, named], maximize=True)
    pairs = [(int(r), int(named[c])) for r, c in zip(rows, columns, strict=True) if counts[r, named[c]]]
    of_row = dict(pairs)
    free = [int(c) for c in named if c not in of_row.values()]
    order = [of_row[r] for r in range(len(classes)) if r in of_row] + free
    order += [int(c) for c in np.flatnonzero(clusters < 0)]
    in_order = [r for r in range(len(classes)) if r in of_row] + [
        r for r in range(len(classes)) if r not in of_row
    ]
    right = sum(int(counts[pair]) for pair in pairs)
    cluster_of_class = np.full(len(classes), -2)
    for row, place in pairs:
        cluster_of_class[row] = clusters[place]
    return Comparison(
        classes=[classes[r] for r in in_order],
        clusters=[int(clusters[c]) for c in order],
        counts=counts[np.ix_(in_order, order)],
        figures=[_figures(classes[r], r, of_row.get(r), clusters, counts) for r in range(len(classes))],
        matched={int(clusters[c]): classes[r] for r, c in pairs},
        accuracy=right / len(scored),
        scored=scored,
        wrong=scored[assignments.clusters[scored] != cluster_of_class[of_class]],
    )


def confusions(comparison: Comparison, assignments: Assignments, most: int, pictures: int) -> list[Confusion]:
    """The ``most`` frequent ways to go wrong, each with its most confident ``pictures``."""
    groups: dict[tuple[str, int], list[int]] = {}
    for position in comparison.wrong.tolist():
        assert assignments.labels is not None
        groups.setdefault((assignments.labels[position], int(assignments.clusters[position])), []).append(
            position
        )
    largest = sorted(groups.items(), key=lambda group: -len(group[1]))[:most]
    return [
        Confusion(
            label=label,
            cluster=cluster,
            taken_for=comparison.matched.get(cluster),
            count=len(members),
            positions=np.array(sorted(members, key=lambda i: -assignments.confidence[i])[:pictures]),
        )
        for (label, cluster), members in largest
    ]


def _figures(
    name: str, row: int, column: int | None, clusters: np.ndarray, counts: np.ndarray
) -> ClassFigures:
    size = int(counts[row].sum())
    if column is None:
        return ClassFigures(name, size, None, 0.0, 0.0, 0.0)
    hit = int(counts[row, column])
    taken = int(counts[:, column].sum())
    return ClassFigures(name, size, int(clusters[column]), hit / taken, hit / size, 2 * hit / (taken + size))


def _natural(name: str) -> tuple[bool, int, str]:
    """Numbers by their value, before words."""
    return (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)

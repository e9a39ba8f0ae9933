"""Compare clusters with known classes: matches, scores per class, and confusions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from ebsc_core.runs.store.saved import Assignments


@dataclass(frozen=True)
class ClassFigures:
    """Hold the scores of a class and its matched cluster; the scores are zero without a match."""

    name: str
    size: int
    cluster: int | None
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Confusion:
    """Hold the images of a class in a cluster that is matched to another class."""

    label: str
    cluster: int
    taken_for: str | None
    """The class that the cluster is matched to, if any."""
    count: int
    positions: np.ndarray
    """The positions of some of these images; the most confident comes first."""


@dataclass(frozen=True)
class ClassComparison:
    """Hold the scored images by class and cluster, after the best one-to-one assignment."""

    classes: list[str]
    clusters: list[int]
    """The numbers of the clusters. If some images have no cluster, -1 comes last."""
    counts: np.ndarray
    """The counts have shape ``(len(classes), len(clusters))``. Matched pairs are on the diagonal."""
    figures: list[ClassFigures]
    matched: dict[int, str]
    """The class of each matched cluster."""
    accuracy: float
    scored: np.ndarray
    """The positions of the scored images."""
    wrong: np.ndarray
    """The positions of the scored images that are not in the cluster of their class."""


def compare_with_classes(assignments: Assignments) -> ClassComparison | None:
    """Compare the scored images with their classes; return None if the classes are not known.

    If the run held out images, only those are scored.
    """
    if assignments.labels is None:
        return None
    scored = np.arange(
        assignments.fitted if assignments.fitted < len(assignments.ids) else 0, len(assignments.ids)
    )
    labels = [assignments.labels[i] for i in scored]
    classes = sorted(set(labels), key=natural)
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
    return ClassComparison(
        classes=[classes[r] for r in in_order],
        clusters=[int(clusters[c]) for c in order],
        counts=counts[np.ix_(in_order, order)],
        figures=[_figures(classes[r], r, of_row.get(r), clusters, counts) for r in range(len(classes))],
        matched={int(clusters[c]): classes[r] for r, c in pairs},
        accuracy=right / len(scored),
        scored=scored,
        wrong=scored[assignments.clusters[scored] != cluster_of_class[of_class]],
    )


def confusions(
    comparison: ClassComparison, assignments: Assignments, most: int, pictures: int
) -> list[Confusion]:
    """Return the ``most`` frequent confusions, each with its ``pictures`` most confident images."""
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


def natural(name: str) -> tuple[bool, int, str]:
    """Return a sort key that puts numbers, by value, before words."""
    is_number = name.isdecimal() and len(name) < 1000  # Python reads no number of 4,300 digits
    return (not is_number, int(name) if is_number else 0, name)

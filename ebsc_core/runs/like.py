"""Let clusters keep the numbers and names that they had in an earlier run, usually one on fewer images.

Clusters of the two runs are matched by the images that they share, so that as many of these as possible keep
their number (Kuhn, "The Hungarian method for the assignment problem", 1955).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.cluster import contingency_matrix

from ebsc_core.clustering.cluster import ClusteringResult
from ebsc_core.runs.store.compare import are_positions, match_images
from ebsc_core.runs.store.decisions import Name, Naming, write_decisions
from ebsc_core.runs.store.directory import ASSIGNMENTS, DECISIONS
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.errors import DataError
from ebsc_core.utils.progress import Progress


@dataclass(frozen=True)
class Matching:
    """Hold the number of each new cluster, and what became of the earlier ones."""

    numbers: dict[int, int]
    """The number of each cluster, by its label in the new run."""
    kept: list[int]
    """The numbers of clusters that are in both runs."""
    split: dict[int, int]
    """The numbers of clusters that come from an earlier one which also goes on, and the number of that."""
    new: list[int]
    """The numbers of clusters that share no image with an earlier one."""
    gone: dict[int, int | None]
    """The earlier numbers that no cluster has now, and the number that most of their images have."""
    staying: float
    """The share of the shared images that keep their number."""

    def lines(self) -> list[str]:
        """Say what changed, a line for each kind of change."""
        into = {number: "" if now is None else f" (now in {now})" for number, now in self.gone.items()}
        kinds = {
            "kept": map(str, self.kept),
            "split": (f"{number} from {source}" for number, source in self.split.items()),
            "new": map(str, self.new),
            "gone": (f"{number}{now}" for number, now in into.items()),
        }
        texts = {kind: ", ".join(words) for kind, words in kinds.items()}
        return [f"clusters {kind}: {text}" for kind, text in texts.items() if text]


def match_numbers(earlier: np.ndarray, labels: np.ndarray, free: int) -> Matching:
    """Match the clusters of two runs.

    Parameters
    ----------
    earlier : ndarray of shape (N,)
        The cluster of each image in the earlier run; -1 for none, or if the image is not in it.
    labels : ndarray of shape (N,)
        The cluster of each image in the new run; -1 for none.
    free : int
        The first number that no cluster has had.
    """
    shared = (earlier >= 0) & (labels >= 0)
    before, now = np.unique(earlier[earlier >= 0]), np.unique(labels[labels >= 0])
    counts = np.zeros((len(before), len(now)), dtype=np.int64)
    if shared.any():
        at = np.ix_(np.isin(before, earlier[shared]), np.isin(now, labels[shared]))
        counts[at] = contingency_matrix(earlier[shared], labels[shared])
    pairs = [
        (i, j) for i, j in zip(*linear_sum_assignment(counts, maximize=True), strict=True) if counts[i, j]
    ]
    numbers = {int(now[j]): int(before[i]) for i, j in pairs}
    others = [j for j in range(len(now)) if int(now[j]) not in numbers]
    left = sorted(set(range(len(before))) - {i for i, _ in pairs})
    numbers |= {int(now[j]): free + place for place, j in enumerate(others)}
    number_of = [numbers[int(label)] for label in now]
    return Matching(
        numbers=numbers,
        kept=sorted(int(before[i]) for i, _ in pairs),
        split={number_of[j]: int(before[counts[:, j].argmax()]) for j in others if counts[:, j].any()},
        new=[number_of[j] for j in others if not counts[:, j].any()],
        gone={int(before[i]): number_of[counts[i].argmax()] if counts[i].any() else None for i in left},
        staying=sum(int(counts[i, j]) for i, j in pairs) / max(int(shared.sum()), 1),
    )


class Earlier:
    """Hold an earlier run, and the clusters that it has given to the images of a new one.

    Parameters
    ----------
    path : str
        The directory of the earlier run.
    ids : sequence of str
        The names of the ``N`` images of the new run.

    Raises
    ------
    RunDirectoryError
        If the directory holds no finished run.
    DataError
        If the runs have no image in common.
    """

    def __init__(self, path: str, ids: Sequence[str], progress: Progress) -> None:
        self.run, self.progress = SavedRun(Path(os.path.expanduser(path))), progress
        curated = self.run.curated
        here, there, unclear = match_images(ids, self.run.assignments.ids)
        if not len(here):
            why = f"no image is also in {path}"
            if unclear:
                why = f"{path} has each name that both have more or less often"
            raise DataError(f"{why}, so no cluster can keep its number; leave `like` out")
        if unclear:
            progress.warn(
                f"{unclear} images are not matched with those of {path}, which has their names more or less "
                "often"
            )
        if are_positions(ids[place] for place in here):
            progress.warn(f"images are matched with those of {path} by position: their names are positions")
        self.clusters = np.full(len(ids), -1)
        self.clusters[here] = curated.clusters[there]
        self.free = self.run.next_number
        self.shared = len(here)
        self.matching: Matching | None = None

    def renumber(self, result: ClusteringResult) -> ClusteringResult:
        """Give the clusters their numbers, and say what changed.

        Raises
        ------
        DataError
            If a number would be larger than the number of images.
        """
        found = self.matching = match_numbers(self.clusters, result.labels, self.free)
        if max(found.numbers.values(), default=0) >= len(result.labels):
            raise DataError(
                f"after {self.run.path}, new clusters would have larger numbers than there are images; leave "
                "`like` out to number the clusters anew"
            )
        self.progress.note(
            f"{self.shared} images are also in {self.run.path}; {found.staying:.1%} of them keep their "
            "cluster"
        )
        for line in found.lines():
            self.progress.note(line)
        assigner = replace(result.assigner, labels=_renumbered(result.assigner.labels, found.numbers))
        return replace(result, labels=_renumbered(result.labels, found.numbers), assigner=assigner)

    def record(self) -> dict[str, Any]:
        """Return what ``metrics.json`` keeps, as plain values."""
        assert self.matching
        found, used = self.matching, self.matching.numbers.values()
        return {
            "run": str(self.run.path),
            "shared": self.shared,
            "staying": round(found.staying, 4),
            "kept": found.kept,
            "split": [{"number": number, "from": source} for number, source in found.split.items()],
            "new": found.new,
            "gone": [{"number": number, "into": now} for number, now in found.gone.items()],
            "next": max(self.free, max(used, default=-1) + 1),
        }

    def write_names(self, folder: Path) -> None:
        """Write the names of clusters that go on, as the first decision of the new run."""
        assert self.matching
        names = self.run.curated.names
        kept = [Name(number=number, name=names[number]) for number in self.matching.kept if number in names]
        if kept:
            write_decisions(folder / DECISIONS, folder / ASSIGNMENTS, [Naming(names=kept)])


def _renumbered(labels: np.ndarray, numbers: dict[int, int]) -> np.ndarray:
    """Return labels ``(N,)`` with their new numbers; -1 stays."""
    table = np.full(max(numbers, default=-1) + 2, -1)
    for label, number in numbers.items():
        table[label] = number
    return table[labels]  # the last entry is that of -1

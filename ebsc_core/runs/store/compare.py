"""Compare finished runs: their figures, their settings, and the agreement of their clusters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix

from ebsc_core.config.loading import flattened
from ebsc_core.config.schema import PROVENANCE, current_view_names
from ebsc_core.runs.store.directory import CONFIG
from ebsc_core.runs.store.listing import FREE, KNN_ACCURACY, SCORES, data_of
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.errors import DataError, RunDirectoryError

POSITION = re.compile(r"([a-z]+/)?[0-9]+")


@dataclass(frozen=True)
class Agreement:
    """Measure how similar two clusterings are on the images that both runs have put into clusters."""

    first: int
    """The index of the first run, counted from 0."""
    second: int
    images: int
    ari: float
    unclear: int = 0
    """The images of the first run that are left out, because the runs have their name unequally often."""


@dataclass(frozen=True)
class Contingency:
    """Count the images for each pair of clusters of two runs.

    The clusters of one run are sorted by size. Those of the other run have the order of the clusters
    that the best assignment matches them to; unmatched clusters follow, sorted by size.
    """

    rows: list[int]
    """The clusters of one run, ``K`` of them."""
    columns: list[int]
    """The clusters of the other run, ``L`` of them."""
    counts: np.ndarray
    """The numbers of images, ``(K, L)``."""

    @property
    def matched(self) -> int:
        """The number of images in matched clusters."""
        return int(np.trace(self.counts))


@dataclass(frozen=True)
class Comparison:
    """Hold the comparison of two or more runs. A figure or setting that a run does not have is None."""

    runs: list[str]
    figures: dict[str, list[float | None]]
    """One value for each run, by name of the figure. Scores are between 0 and 1."""
    settings: dict[str, list[Any]]
    """Only the settings that differ, with one value for each run."""
    agreements: list[Agreement]
    """The agreement of each pair of runs."""
    contingencies: dict[int, Contingency]
    """The table of the first run's clusters and those of each other run, by the index of this run."""

    def differences(self, figure: str) -> list[float | None]:
        """Return by how much a figure of each run is above that of the first run."""
        first, *_ = values = self.figures[figure]
        return [None if value is None or first is None else value - first for value in values]

    def record(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "runs": self.runs,
            "figures": self.figures,
            "settings": self.settings,
            "agreements": [
                {
                    "runs": [self.runs[a.first], self.runs[a.second]],
                    "images": a.images,
                    "unclear": a.unclear,
                    "ari": a.ari,
                }
                for a in self.agreements
            ],
            "contingencies": [
                {
                    "runs": [self.runs[0], self.runs[other]],
                    "rows": table.rows,
                    "columns": table.columns,
                    "counts": table.counts.tolist(),
                }
                for other, table in self.contingencies.items()
            ],
        }


def compare(runs: Sequence[SavedRun]) -> Comparison:
    """Compare two or more runs; the result keeps their order.

    Raises
    ------
    RunDirectoryError
        If a file of a run is damaged.
    DataError
        If two runs have no image in common.
    """
    agreements, contingencies = [], {}
    for (i, one), (j, other) in combinations(enumerate(runs), 2):
        a, b, unclear = _common(one, other)
        agreements.append(Agreement(i, j, len(a), float(adjusted_rand_score(a, b)), unclear))
        if i == 0:
            contingencies[j] = match(a, b)
    return Comparison(
        [str(run.path) for run in runs], _figures(runs), _differing(runs), agreements, contingencies
    )


def match(a: np.ndarray, b: np.ndarray) -> Contingency:
    """Compute the contingency table of two clusterings ``(N,)`` of the same images."""
    rows, columns = np.unique(a), np.unique(b)
    counts = contingency_matrix(a, b)
    first, second = linear_sum_assignment(counts, maximize=True)
    partner = dict(zip(first.tolist(), second.tolist(), strict=True))
    by_size = np.argsort(-counts.sum(axis=1), kind="stable").tolist()
    # Matched clusters come first, so that pairs are on the diagonal.
    by_size.sort(key=lambda row: row not in partner)
    matched_columns = [partner[row] for row in by_size if row in partner]
    other_columns = [
        int(column)
        for column in np.argsort(-counts.sum(axis=0), kind="stable")
        if column not in matched_columns
    ]
    order = [*matched_columns, *other_columns]
    return Contingency(rows[by_size].tolist(), columns[order].tolist(), counts[np.ix_(by_size, order)])


def match_images(one: Sequence[str], other: Sequence[str]) -> tuple[np.ndarray, np.ndarray, int]:
    """Match the images of two runs by their names.

    Several images may have one name: rows that belong to one photo, for instance. They are matched in their
    order if both runs have equally many of them. Otherwise nothing tells them apart.

    Returns
    -------
    here, there : ndarray of shape (M,)
        The positions of the matched images in either run, in the order of the first.
    unclear : int
        How many images of the first run are left out, because the other has their name unequally often.
    """
    here, there = Counter(one), Counter(other)
    places = {key: place for place, key in enumerate(_numbered(other))}
    found = np.array([places.get(key, -1) for key in _numbered(one)], dtype=np.int64)
    unclear = {name for name in here.keys() & there.keys() if here[name] != there[name]}
    if unclear:
        found[[name in unclear for name in one]] = -1
    matched = np.flatnonzero(found >= 0)
    return matched, found[matched], sum(here[name] for name in unclear)


def are_positions(names: Iterable[str]) -> bool:
    """Return whether all names are positions in a data set, which identify no image of another one."""
    return all(map(POSITION.fullmatch, names))


def _numbered(names: Iterable[str]) -> Iterator[str | tuple[str, int]]:
    """Yield each name, with a number from the second time on."""
    seen: Counter[str] = Counter()
    for name in names:
        yield (name, seen[name]) if seen[name] else name
        seen[name] += 1


def _common(one: SavedRun, other: SavedRun) -> tuple[np.ndarray, np.ndarray, int]:
    """Return both runs' clusters of the images that have one in both, and how many images are unclear."""
    (names, a), (others, b) = _clustered(one), _clustered(other)
    here, there, unclear = match_images(names, others)
    only_positions = are_positions(names[place] for place in here)
    if not len(here) or (only_positions and _data(one) != _data(other)):
        why = "they are of different data, and their names are positions"
        if not len(here):
            first = (repr(next(iter(named), "")) for named in (names, others))
            why = f"the first are called {' and '.join(first)}"
        if unclear:
            why = "one has the names that both have more often than the other, so images cannot be matched"
        raise DataError(
            f"{one.path} and {other.path} have no image in common ({why}), so they cannot be compared"
        )
    return a[here], b[there], unclear


def _clustered(run: SavedRun) -> tuple[list[str], np.ndarray]:
    """Return the names and clusters of the images that have a cluster."""
    found = run.assignments
    places = np.flatnonzero(found.clusters >= 0)
    return [found.ids[place] for place in places.tolist()], found.clusters[places]


def _data(run: SavedRun) -> str:
    name = data_of(run.config)
    if name is None:
        raise RunDirectoryError(f"{run.path / CONFIG} is damaged: it names no data")
    return name


def _figures(runs: Sequence[SavedRun]) -> dict[str, list[float | None]]:
    """Collect the figures that at least one run has."""
    columns = [_figures_of(run) for run in runs]
    named = {name: [column[name] for column in columns] for name in columns[0]}
    return {name: values for name, values in named.items() if any(value is not None for value in values)}


def _figures_of(run: SavedRun) -> dict[str, float | None]:
    metrics = run.metrics
    scores, free = metrics["scores"] or {}, metrics["label_free"]
    return {
        **{name: scores.get(name) for name in (*SCORES, KNN_ACCURACY)},
        **{name: free[name] for name in FREE},
        "clusters": len([size for size in free.get("cluster_sizes", []) if size]),
        "images": metrics["images"],
        "seconds": round(sum(metrics["seconds"].values()), 2),
    }


def _settings(run: SavedRun) -> dict[str, Any]:
    """Return the settings of ``run.toml`` by their dotted names of today."""
    tables = {name: value for name, value in run.tables.items() if name != PROVENANCE}
    if "views" in tables:
        tables["views"] = current_view_names(tables["views"])
    return dict(flattened(tables))


def _differing(runs: Sequence[SavedRun]) -> dict[str, list[Any]]:
    """Collect the settings in which the runs differ, in the order of the first run that has them."""
    trees = [_settings(run) for run in runs]
    names = dict.fromkeys(name for tree in trees for name in tree)
    columns = {name: [tree.get(name) for tree in trees] for name in names}
    return {name: values for name, values in columns.items() if any(value != values[0] for value in values)}

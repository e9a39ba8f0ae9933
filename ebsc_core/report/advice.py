"""Collect the points of a run that deserve a second look: its warnings, and advice from its figures."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from ebsc_core.report.formatting import listed, number, percent, ranges
from ebsc_core.runs.store.saved import Assignments, SavedRun

# Ratios of a cluster's size to the median. Above the first, several groups may have merged; below the
# second, the cluster may be a fragment.
MERGED, TINY = 3.0, 0.2
# A cluster is doubtful if the mean confidence of its images is below this.
LOW_CONFIDENCE = 0.5
# Limit of the run's own warnings; there may be one for each damaged image.
MAX_WARNINGS = 20


@dataclass(frozen=True)
class Advice:
    """Hold a point that deserves a look, and a remedy."""

    said: str
    help: str = ""


def advice(
    metrics: dict[str, Any],
    assignments: Assignments,
    k: int,
    rank: float | None,
    width: int,
    decided: Collection[int] = (),
    finds_number: bool = False,
) -> list[Advice]:
    """Return the warnings of the run, then the advice from its figures.

    Parameters
    ----------
    metrics : dict
        The contents of ``metrics.json``.
    assignments : Assignments
    k : int
        The number of clusters that the run found, empty ones included.
    rank : float, optional
        The effective rank of the rows that express one another; they have ``width`` columns.
    decided : collection of int
        The clusters that merges, splits and moves have made or emptied, whose sizes need no advice.
    finds_number : bool
        Whether the clusterer has found the number itself: then no other number can be advised.
    """
    warnings = metrics.get("warnings") or []
    own = [Advice(str(warning)) for warning in warnings[:MAX_WARNINGS]]
    if len(warnings) > MAX_WARNINGS:
        own.append(
            Advice(f"The run gave {len(warnings) - MAX_WARNINGS:,} more warnings; metrics.json has all.")
        )
    told = " ".join(item.said for item in own)
    return own + _derived(metrics, assignments, k, rank, width, told, decided, finds_number)


def advice_from_figures(run: SavedRun) -> list[Advice]:
    """Return the advice from the figures of a run, without its warnings, which it has shown already."""
    told = " ".join(map(str, run.metrics.get("warnings") or []))
    finds_number = run.config.n_clusters is None
    return _derived(
        run.metrics, run.assignments, cluster_count(run), None, 0, told, finds_number=finds_number
    )


def cluster_count(run: SavedRun) -> int:
    """Return the number of clusters that a run was asked for, or has found if that is more."""
    wanted = run.config.n_clusters
    clusters = run.assignments.clusters
    found = len(np.unique(clusters[clusters >= 0]))
    return max(wanted if isinstance(wanted, int) else 0, found)


def _derived(
    metrics: dict[str, Any],
    assignments: Assignments,
    k: int,
    rank: float | None,
    width: int,
    told: str,
    decided: Collection[int] = (),
    finds_number: bool = False,
) -> list[Advice]:
    """Return the advice from figures; what the warnings have told is not repeated."""
    free = metrics.get("label_free") or {}
    derived = [
        None if "collaps" in told else _collapsed(rank, width, k),
        None if finds_number else _pieces(free.get("connected_components"), k),
        _copies(metrics.get("copies") or 0),
        *_sizes(assignments, k, decided, finds_number),
        None if "have no cluster" in told else _unassigned(assignments),
        *_confidence(assignments, metrics.get("copies") or 0),
    ]
    return [item for item in derived if item]


def _collapsed(rank: float | None, width: int, k: int) -> Advice | None:
    if rank is None or rank >= min(k, width) / 2:
        return None
    return Advice(
        f"The features have collapsed: they fill only {number(rank, 1)} of {width} directions (effective "
        f"rank), fewer than half of what {k} clusters need.",
        "Train longer, with larger batches or another objective; lower joint.weight if the rank fell in "
        "a joint phase.",
    )


def _pieces(components: int | None, k: int) -> Advice | None:
    if components is None or components <= k:
        return None
    return Advice(
        f"The affinity graph has {components:,} pieces without any connection, more than the {k} clusters: "
        "some clusters consist of several unconnected pieces.",
        "Raise `top_k`, or set `n_clusters` to the number of real groups.",
    )


def _copies(count: int) -> Advice | None:
    if not count:
        return None
    copies = "1 is a copy of another" if count == 1 else f"{count:,} are copies of others"
    return Advice(f"{copies}, or nearly so: only one of each was clustered, and its copies are with it.")


def _sizes(
    assignments: Assignments, k: int, decided: Collection[int], finds_number: bool
) -> list[Advice | None]:
    options = "other options of the clusterer"
    clusters = assignments.clusters[: assignments.fitted]
    sizes = np.bincount(clusters[clusters >= 0], minlength=k)
    if not sizes.any():
        return [Advice("No cluster has any members.")]
    empty = 0 if decided else max(0, k - int((sizes > 0).sum()))
    sizes[[number for number in decided if number < len(sizes)]] = 0
    present = sizes[sizes > 0]
    if not len(present):
        return []
    median = float(np.median(present))
    merged = np.flatnonzero(sizes > MERGED * median).tolist()
    tiny = np.flatnonzero((sizes > 0) & (sizes < TINY * median)).tolist()
    return [
        Advice(
            f"{_clusters(merged)} {_has(merged)} more than {MERGED:.0f} times the size of the median "
            f"cluster ({_numbers(sizes[merged])} against {median:,.0f}): several groups may have merged, if "
            "yours are of like size.",
            f"Look at the doubtful members; try {options if finds_number else 'a larger `n_clusters`'}.",
        )
        if merged
        else None,
        Advice(
            f"{_clusters(tiny)} {_has(tiny)} less than a fifth of the size of the median cluster "
            f"({_numbers(sizes[tiny])} against {median:,.0f}): they may be fragments or outliers.",
            f"Try {options if finds_number else 'a smaller `n_clusters`, or a larger `top_k`'}.",
        )
        if tiny
        else None,
        Advice(f"{empty} of {k} clusters {'is' if empty == 1 else 'are'} empty.") if empty else None,
    ]


def _unassigned(assignments: Assignments) -> Advice | None:
    clusters = assignments.clusters[: assignments.fitted]
    none = int((clusters < 0).sum())
    if not none:
        return None
    return Advice(f"{none:,} of {len(clusters):,} ({percent(none / len(clusters), 1)}) belong to no cluster.")


def _confidence(assignments: Assignments, copies: int) -> list[Advice]:
    clusters, confidence = (
        assignments.clusters[: assignments.fitted],
        assignments.confidence[: assignments.fitted],
    )
    inside = clusters >= 0
    sums = np.bincount(clusters[inside], weights=confidence[inside])
    sizes = np.bincount(clusters[inside])
    # The confidence of a row comes from other rows of its cluster, and here are none.
    single = (sizes > 0) & (sizes <= 1 + copies) & (sums == 0)
    several = (sizes > 0) & ~single
    found = []
    if single.any():
        numbers = np.flatnonzero(single).tolist()
        apart = ", apart from copies" if sizes[single].max() > 1 else ""
        found.append(
            Advice(
                f"{_clusters(numbers)} {_has(numbers)} a single member{apart}: a confidence of "
                f"{percent(0)} says nothing there."
            )
        )
    if not several.any():
        return found
    mean = float(sums[several].sum() / sizes[several].sum())
    weak = np.flatnonzero(several & (sums < LOW_CONFIDENCE * sizes)).tolist()
    if mean < LOW_CONFIDENCE:
        others = " of the others" if found else ""
        said = f"The mean confidence{others} is only {percent(mean)}: the clusters are not well separated."
        help = "Better features help most: another backbone, pretrained weights, or longer training."
        found.append(Advice(said, help))
    elif weak:
        said = f"In {_clusters(weak).lower()}, the mean confidence is below {percent(LOW_CONFIDENCE)}."
        found.append(Advice(said, "Look at the clusters they lean to: they may be parts of those."))
    return found


def _numbers(sizes: np.ndarray) -> str:
    return listed([f"{size:,}" for size in sizes])


def _clusters(numbers: list[int]) -> str:
    return f"Cluster{'' if len(numbers) == 1 else 's'} {ranges(numbers)}"


def _has(numbers: list[int]) -> str:
    return "has" if len(numbers) == 1 else "have"

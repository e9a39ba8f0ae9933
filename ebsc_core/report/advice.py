"""What of a run deserves a second look, in words: its own warnings, and what its figures say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ebsc_core.report.formatting import listed, number, percent, ranges
from ebsc_core.runs.store.saved import Assignments

# Of a cluster's size over the median: beyond the first it may be several, below the second a fragment.
MERGED, TINY = 3.0, 0.2
# Clusters that keep less than this of their coefficients within them are more doubt than cluster.
LOW_CONFIDENCE = 0.5
# Of the run's own warnings, which may be one for each damaged image.
MAX_WARNINGS = 20


@dataclass(frozen=True)
class Advice:
    """Something to look at, and what may help."""

    said: str
    help: str = ""


def advice(
    metrics: dict[str, Any], found: Assignments, k: int, rank: float | None, width: int
) -> list[Advice]:
    """The run's own warnings first.

    Parameters
    ----------
    metrics : dict
        ``metrics.json``.
    found : Assignments
    k : int
        How many clusters were asked for.
    rank : float, optional
        Effective rank of the rows that express one another, of ``width`` columns.
    """
    warnings = metrics.get("warnings") or []
    own = [Advice(str(warning)) for warning in warnings[:MAX_WARNINGS]]
    if len(warnings) > MAX_WARNINGS:
        own.append(
            Advice(f"The run gave {len(warnings) - MAX_WARNINGS:,} more warnings; metrics.json has all.")
        )
    told = " ".join(item.said for item in own)
    free = metrics.get("label_free") or {}
    derived = [
        None if "collaps" in told else _collapsed(rank, width, k),
        _pieces(free.get("connected_components"), k),
        *_sizes(found, k),
        *_confidence(found),
    ]
    return own + [item for item in derived if item]


def _collapsed(rank: float | None, width: int, k: int) -> Advice | None:
    if rank is None or rank >= k / 2:
        return None
    return Advice(
        f"The features have collapsed: they fill only {number(rank, 1)} of {width} directions (effective "
        f"rank), fewer than half of what {k} clusters need.",
        "Train longer, with larger batches or another objective; lower joint.weight if it fell in the joint "
        "phase.",
    )


def _pieces(components: int | None, k: int) -> Advice | None:
    if components is None or components <= k:
        return None
    return Advice(
        f"The affinity falls apart into {components:,} pieces that nothing connects, more than the {k} "
        "clusters: some clusters are made of pieces that nothing holds together.",
        "Raise --set top_k, or look for as many clusters as there are real groups.",
    )


def _sizes(found: Assignments, k: int) -> list[Advice | None]:
    clusters = found.clusters[: found.fitted]
    sizes = np.bincount(clusters[clusters >= 0], minlength=k)
    present = sizes[sizes > 0]
    if not len(present):
        return [Advice("Nothing is in any cluster.")]
    median = float(np.median(present))
    merged = np.flatnonzero(sizes > MERGED * median).tolist()
    tiny = np.flatnonzero((sizes > 0) & (sizes < TINY * median)).tolist()
    none, empty = int((clusters < 0).sum()), int((sizes == 0).sum())
    return [
        Advice(
            f"{_clusters(merged)} {_has(merged)} more than {MERGED:.0f} times the size of the median "
            f"cluster ({_numbers(sizes[merged])} against {median:,.0f}): several groups may have merged.",
            "Look at what is doubtful in it; try a larger --n-clusters.",
        )
        if merged
        else None,
        Advice(
            f"{_clusters(tiny)} {_has(tiny)} less than a fifth of the size of the median cluster "
            f"({_numbers(sizes[tiny])} against {median:,.0f}): fragments, or outliers.",
            "Try a smaller --n-clusters, or a larger --set top_k.",
        )
        if tiny
        else None,
        Advice(f"{empty} of {k} clusters {'is' if empty == 1 else 'are'} empty.") if empty else None,
        Advice(f"{none:,} of {len(clusters):,} ({percent(none / len(clusters), 1)}) belong to no cluster.")
        if none
        else None,
    ]


def _confidence(found: Assignments) -> list[Advice | None]:
    clusters, confidence = found.clusters[: found.fitted], found.confidence[: found.fitted]
    inside = clusters >= 0
    if not inside.any():
        return []
    mean = float(confidence[inside].mean())
    if mean < LOW_CONFIDENCE:
        return [
            Advice(
                f"On average only {percent(mean)} of the coefficients stay within the cluster they are of: "
                "the clusters are not well separated.",
                "Better features help most: another backbone, pretrained weights, or longer training.",
            )
        ]
    sums = np.bincount(clusters[inside], weights=confidence[inside])
    sizes = np.bincount(clusters[inside])
    weak = np.flatnonzero((sizes > 0) & (sums < LOW_CONFIDENCE * sizes)).tolist()
    if not weak:
        return []
    return [
        Advice(
            f"In {_clusters(weak).lower()}, less than half of the coefficients stay within.",
            "Look at where they lean: they may be parts of others.",
        )
    ]


def _numbers(sizes: np.ndarray) -> str:
    return listed([f"{size:,}" for size in sizes])


def _clusters(numbers: list[int]) -> str:
    return f"Cluster{'' if len(numbers) == 1 else 's'} {ranges(numbers)}"


def _has(numbers: list[int]) -> str:
    return "has" if len(numbers) == 1 else "have"

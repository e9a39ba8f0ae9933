"""Write what a run leaves: figures, assignments, affinity, configuration and weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import nn

from ebsc_core.clustering import metrics
from ebsc_core.clustering.cluster import ClusteringResult
from ebsc_core.clustering.neighbor_vote import knn_accuracy
from ebsc_core.config.schema import PROVENANCE
from ebsc_core.data.features.rows import StoredRows
from ebsc_core.data.images.run_images import RunImages
from ebsc_core.runs.context import RunContext
from ebsc_core.runs.like import Earlier
from ebsc_core.runs.store.listing import KNN_ACCURACY
from ebsc_core.utils.provenance import provenance
from ebsc_core.utils.system import peak_memory_mib
from ebsc_core.utils.weights import save_weights


@dataclass(frozen=True)
class RunResult:
    """Hold what a finished run came to."""

    directory: Path
    metrics: dict[str, Any]
    images: RunImages | None = None
    """What a report can show; None for a run on features that names no images."""


class Named(Protocol):
    """Whatever was clustered: images, or rows of a file."""

    @property
    def ids(self) -> Sequence[str]: ...

    @property
    def labels(self) -> np.ndarray | None: ...

    def label_names(self) -> list[str] | None: ...


@dataclass(frozen=True)
class Assignment:
    """Hold ``N`` images, or rows of a file, and the clusters that they are in."""

    named: Named
    rows: StoredRows
    """Their plain rows."""
    clusters: np.ndarray
    """``(N,)``"""
    confidence: np.ndarray
    """``(N,)``"""


def run_figures(
    context: RunContext,
    result: ClusteringResult,
    assignments: Sequence[Assignment],
    earlier: Earlier | None = None,
) -> dict[str, Any]:
    """Return the figures that every run has; the scores are those of the last assignment.

    Parameters
    ----------
    assignments : sequence of Assignment
        The fitted images or rows, and those that were held out, if any.
    earlier : Earlier, optional
        The run from which clusters have kept their numbers.
    """
    scores = _scores(context, assignments)
    kept = {"like": earlier.record()} if earlier else {}
    return (
        result.figures
        | kept
        | {
            "protocol": context.config.protocol,
            "scored_images": len(assignments[-1].clusters),
            "scores": scores,
            "images": len(assignments[0].rows),
            "seconds": {name: round(value, 2) for name, value in context.stage.seconds.items()},
            "peak_memory_mib": peak_memory_mib(),
            "warnings": context.progress.warnings,
        }
    )


def _scores(context: RunContext, assignments: Sequence[Assignment]) -> dict[str, float] | None:
    """Score the clusters of the last assignment, and its rows; None without labels."""
    fitted, scored = assignments[0], assignments[-1]
    voters, labels = fitted.named.labels, scored.named.labels
    if voters is None or labels is None:
        return None
    held_out = (scored.rows, labels) if len(assignments) > 1 else None
    with context.stage("scores"):
        accuracy = knn_accuracy(fitted.rows, voters, context.config.seed, context.device, held_out)
        return metrics.scores(labels, scored.clusters) | {KNN_ACCURACY: accuracy}


def write_run(
    context: RunContext,
    result: ClusteringResult,
    assignments: Sequence[Assignment],
    resolved: dict[str, Any],
    figures: dict[str, Any],
    earlier: Earlier | None = None,
) -> None:
    """Write the files of a run; ``resolved`` settings come on top of the requested ones.

    Clusters that have kept their numbers from an ``earlier`` run keep their names, too.
    """
    directory, model = context.directory, result.method.model
    made_with = provenance() | {"parts": context.plan.suppliers()} | resolved.pop(PROVENANCE, {})
    with directory.writing():
        if isinstance(model, nn.Module):
            save_weights(model, directory.checkpoints / "coefficients.safetensors")
        directory.write_affinity(result.affinity)
        directory.write_assignments(_columns(assignments))
        directory.write_config(context.requested | resolved | {PROVENANCE: made_with})
        directory.write_metrics(figures)
        if earlier:
            earlier.write_names(directory.work_folder)


def _columns(assignments: Sequence[Assignment]) -> dict[str, Iterable[Any]]:
    """Return the columns of ``assignments.csv``, fitted images before held-out ones; no column is a list."""
    columns: dict[str, Iterable[Any]] = {
        "image": chain.from_iterable(one.named.ids for one in assignments),
        "cluster": chain.from_iterable(one.clusters for one in assignments),
        "confidence": (f"{value:.4f}" for one in assignments for value in one.confidence),
    }
    if assignments[0].named.labels is not None:
        columns["label"] = chain.from_iterable(one.named.label_names() or [] for one in assignments)
    if len(assignments) > 1:
        splits = zip(assignments, ("train", "test"), strict=True)
        columns["split"] = chain.from_iterable(repeat(split, len(one.named.ids)) for one, split in splits)
    return columns

"""Summarise the run for the head of the page, in a sentence and in figures."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np

from ebsc_core.data.features.forms import ROW_FORMS
from ebsc_core.report.confusion import ClassComparison
from ebsc_core.report.formatting import number, percent, short
from ebsc_core.runs.store.saved import Assignments, SavedRun
from ebsc_core.utils.progress import clock


class Tile(NamedTuple):
    """Hold one figure."""

    name: str
    value: str
    note: str


SCORES = {
    "acc": ("ACC", "accuracy, after the best one-to-one assignment"),
    "nmi": ("NMI", "normalised mutual information"),
    "ari": ("ARI", "adjusted Rand index"),
    "knn_accuracy": (
        "k-NN",
        "of the rows have the class that most of their 20 nearest neighbours have (of fewer in small "
        "classes); it judges the rows, not the clusters",
    ),
}
FREE = {
    "within_cluster_mass": (
        "Kept within",
        "of the affinity stays in its own cluster; the rest leads to others",
    ),
    "silhouette": (
        "Silhouette",
        "from −1 to 1: how much nearer rows are to their own cluster than to the next",
    ),
    "eigengap": ("Eigengap", "how clearly the graph separates into K parts; 0 is not at all"),
    "connected_components": ("Pieces", "parts of the affinity graph without a connection between them"),
    "dictionary_agreement": ("Agreement", "of the sample would be assigned to the cluster that it is in"),
}


def summary(run: SavedRun, found: Assignments, k: int, comparison: ClassComparison | None) -> dict[str, Any]:
    """Return the title, components, lede and tiles."""
    metrics, tables = run.metrics, run.tables
    seconds = sum((metrics.get("seconds") or {}).values())
    device = str(tables.get("device", "an unknown device"))
    processes = metrics.get("processes", 1)
    where = f"{device}, {processes} processes" if processes > 1 else device
    return {
        "data_name": _data_name(run),
        "noun": _noun(run),
        "parts": _parts(run),
        "created": str(run.provenance.get("created", ""))[:16].replace("T", " "),
        "k": k,
        "lede": _lede(run, found, comparison),
        "score_tiles": [
            Tile(name, percent(metrics["scores"][key], 1), note)
            for key, (name, note) in SCORES.items()
            if key in (metrics.get("scores") or {})
        ],
        "free_tiles": _free(metrics.get("label_free") or {}),
        "cost_tiles": [
            Tile("Time", clock(seconds), "all stages, without reused results"),
            Tile("Device", short(where), f"seed {tables.get('seed', 0)}"),
        ],
    }


def _free(free: dict[str, Any]) -> list[Tile]:
    shown = []
    for key, (name, note) in FREE.items():
        value = free.get(key)
        if value is not None:
            as_share = key in ("within_cluster_mass", "dictionary_agreement")
            shown.append(Tile(name, percent(value, 1) if as_share else number(value), note))
    return shown


def _parts(run: SavedRun) -> str:
    tables = run.tables
    cut = str(_part(tables, "clusterer"))
    form = tables.get("whiten", False)
    rows = f"{ROW_FORMS.get(form, form)} {tables.get('express', 'rows')}"
    coefficients = f"{_part(tables, 'coefficients')} on {rows}"
    if run.config.features:
        return short(f"{coefficients} · {cut}")
    learned = str(_part(tables, "backbone"))
    if run.metrics.get("training"):
        learned += f" trained by {_part(tables, 'objective')}"
    return short(f"{learned} · {coefficients} · {cut}")


def _data_name(run: SavedRun) -> str:
    features = run.config.features
    whole = features.path if features else str(_part(run.tables, "data"))
    return short(PurePath(whole).name or "images")


def _noun(run: SavedRun) -> str:
    """Return the noun for the clustered items: rows for features without images, otherwise images."""
    features = run.config.features
    return "images" if features is None or features.images else "rows"


def _part(tables: dict[str, Any], section: str) -> Any:
    found = tables.get(section)
    return found.get("name", "?") if isinstance(found, dict) else "?"


def _lede(run: SavedRun, found: Assignments, comparison: ClassComparison | None) -> str:
    clusters = found.clusters[: found.fitted]
    sizes = np.bincount(clusters[clusters >= 0], minlength=1)
    sizes = sizes[sizes > 0]
    inside = found.confidence[: found.fitted][clusters >= 0]
    sentences = [f"{found.fitted:,} {_noun(run)} were put into {len(sizes)} clusters"]
    if len(sizes):
        low, high = int(sizes.min()), int(sizes.max())
        sentences[0] += f" of {low:,} to {high:,}" if low < high else f" of {low:,} each"
        sentences.append(f"their mean confidence is {percent(float(inside.mean()))}")
    if run.metrics.get("dictionary_size"):
        sentences.append(
            f"{run.metrics['dictionary_size']:,} of them were clustered, and the others assigned"
        )
    held_out = len(found.ids) - found.fitted
    if held_out:
        sentences.append(f"{held_out:,} more were held out and assigned afterwards")
    if comparison:
        of = "of those held out " if held_out else ""
        sentences.append(
            f"{of}{percent(comparison.accuracy)} lie in the cluster that is matched to their class"
        )
    return "; ".join(sentences) + "."

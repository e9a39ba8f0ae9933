"""Write a comparison of runs as one HTML page without other files."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from jinja2 import Environment

from ebsc_core.runs.store.compare import Comparison, Contingency
from ebsc_core.runs.store.listing import KNN_ACCURACY, SCORES
from ebsc_core.utils.errors import printable

TEMPLATE = files("ebsc_core.report") / "templates" / "compare.html.j2"
# Largest number of clusters per side; largest number with readable counts; largest number for which hints
# are worth the size of the page.
MAX_CLUSTERS, NUMBERED, HINTED = 200, 20, 60


def page(comparison: Comparison) -> str:
    """Return the page; all text from the runs is escaped."""
    environment = Environment(autoescape=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        runs=[printable(run) for run in comparison.runs],
        percent=any(score in comparison.figures for score in SCORES),
        figures=figures(comparison),
        settings=settings(comparison),
        agreements=comparison.agreements,
        pictures=[_picture(other + 1, table) for other, table in comparison.contingencies.items()],
    )


def figures(comparison: Comparison) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return each figure with its value in every run, and the difference to the first run."""
    found = []
    for name, values in comparison.figures.items():
        pairs = zip(values, comparison.differences(name), strict=True)
        cells = [
            (_figure(name, value), _figure(name, change, "+") if position and change is not None else "")
            for position, (value, change) in enumerate(pairs)
        ]
        found.append((name.upper() if name in SCORES else name.replace("_", "-"), cells))
    return found


def _figure(name: str, value: float | None, sign: str = "") -> str:
    if value is None:
        return "–"
    if name in (*SCORES, KNN_ACCURACY):
        return f"{100 * value:{sign}.1f}"
    return f"{value:{sign}.3f}" if name not in ("clusters", "images", "seconds") else f"{value:{sign}.10g}"


def settings(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Return each setting that differs, with its value in each run."""
    return [
        (printable(name), [_setting(value) for value in values])
        for name, values in comparison.settings.items()
    ]


def _setting(value: Any) -> str:
    if value is None:
        return "–"
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def _picture(other: int, table: Contingency) -> dict[str, Any]:
    """Return the cells to draw for run 1 and another; empty cells, which are most of them, are left out."""
    counts = table.counts[:MAX_CLUSTERS, :MAX_CLUSTERS]
    sizes = table.counts.sum(axis=1)
    cells = [
        {
            "x": int(x),
            "y": int(y),
            "count": int(counts[y, x]),
            "share": f"{max(0.04, counts[y, x] / sizes[y]):.2f}",
            "hint": f"{counts[y, x]} images: cluster {table.rows[y]} and {table.columns[x]}",
        }
        for y, x in zip(*counts.nonzero(), strict=True)
    ]
    return {
        "other": other,
        "rows": table.rows[:MAX_CLUSTERS],
        "columns": table.columns[:MAX_CLUSTERS],
        "cut": len(table.rows) > MAX_CLUSTERS,
        "cells": cells,
        "matched": table.matched,
        "images": int(table.counts.sum()),
        "numbers": max(counts.shape) <= NUMBERED,
        "hints": max(counts.shape) <= HINTED,
    }

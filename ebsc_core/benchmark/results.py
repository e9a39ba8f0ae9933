"""Collect the results of a suite: mean and spread over seeds, and the file that holds everything."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ebsc_core.benchmark.gains import Gain, Scores, mean_gains, paired_gains
from ebsc_core.benchmark.resolved import Difference, differences
from ebsc_core.benchmark.suite import Cell, Suite
from ebsc_core.plugins.registry import Registry
from ebsc_core.runs.store.listing import KNN_ACCURACY, SCORES
from ebsc_core.utils.files import written_whole
from ebsc_core.utils.provenance import provenance
from ebsc_core.utils.sources import package_sources

FORMAT = "ebsc-benchmark-1"
# The stages of a run that come before its features, or are how it gets them, and the one that only judges.
NOT_COUNTED = ("read data", "read features", "scores")


@dataclass(frozen=True)
class Spread:
    """Hold mean and sample standard deviation over seeds; a single seed has no deviation."""

    mean: float
    std: float | None

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(mean(values), stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True)
class Entry:
    """Hold the results of one row on one data set, over all seeds."""

    row: str
    column: str
    scores: dict[str, Spread]
    """``acc``, ``nmi`` and ``ari`` in percent; empty if a seed failed or there are no labels."""
    knn_accuracy: Spread | None
    """The accuracy of nearest neighbours, in percent, which judges the rows; None if a cell lacks it."""
    feature_seconds: Spread | None
    """The time of training and feature extraction, in whichever cell made the features."""
    seconds: Spread | None
    """The time of everything after the features."""
    peak_memory_mib: int | None
    """The largest peak of any seed, including that of making the features."""
    warnings: list[str]
    failed: list[str]


@dataclass(frozen=True)
class Results:
    """Hold a suite and the results of its cells."""

    suite: Suite
    source: str
    records: list[tuple[Cell, dict[str, Any]]]
    """Every cell with its record, in the suite's order."""

    @cached_property
    def entries(self) -> dict[tuple[str, str], Entry]:
        """The entries by row and column."""
        by_entry: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
        for cell, record in self.records:
            by_entry.setdefault((cell.row, cell.column), {})[cell.seed] = record
        return {key: _entry(*key, records) for key, records in by_entry.items()}

    @cached_property
    def _scores(self) -> dict[tuple[str, str], dict[int, Scores]]:
        """The scores in percent by row and column, then by seed, of entries that have scores."""
        found: dict[tuple[str, str], dict[int, Scores]] = {}
        for cell, record in self.records:
            if self.entries[cell.row, cell.column].scores:
                scores = {name: 100 * record["metrics"]["scores"][name] for name in SCORES}
                found.setdefault((cell.row, cell.column), {})[cell.seed] = scores
        return found

    def gains(self, row: str, column: str) -> dict[str, Gain]:
        """Return the gain in each score over the row's baseline; empty without one, or without scores."""
        baseline = self.suite.file.baseline_of(row)
        return paired_gains(
            self._scores.get((row, column), {}), self._scores.get((baseline or "", column), {})
        )

    def differences(self, row: str, column: str) -> list[Difference]:
        """Return the resolved settings that differ from those of the row's baseline, beyond what it names.

        There are none of cells that were recorded before cells told them.
        """
        resolved: dict[str, dict[int, dict[str, Any]]] = {}
        for cell, record in self.records:
            if cell.column == column and "resolved" in record:
                resolved.setdefault(cell.row, {})[cell.seed] = record["resolved"]
        baseline = self.suite.file.baseline_of(row) or ""
        return differences(resolved.get(row, {}), resolved.get(baseline, {}), self.suite.file.rows[row])

    def average_gains(self, row: str, columns: list[str]) -> dict[str, Gain]:
        """Return the mean gains over data sets; empty if there is none on any of them."""
        return mean_gains([self.gains(row, column) for column in columns])

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values, except the training histories, which stay with the cells."""
        cells = [
            {"row": cell.row, "data": cell.column, "seed": cell.seed, "settings": plain(cell.settings)}
            | {key: value for key, value in record.items() if key not in ("metrics", "format")}
            | {key: value for key, value in record.get("metrics", {}).items() if key != "training"}
            for cell, record in self.records
        ]
        return {
            "format": FORMAT,
            **self.identity(),
            "source": self.source,
            **self.circumstances,
            "table": [self._plain_entry(entry) for entry in self.entries.values()],
            "cells": cells,
        }

    def _plain_entry(self, entry: Entry) -> dict[str, Any]:
        """Return an entry as plain values, with its gains if it has any."""
        values, baseline = asdict(entry), self.suite.file.baseline_of(entry.row)
        if baseline is None:
            return values
        gains = {name: asdict(gain) for name, gain in self.gains(entry.row, entry.column).items()}
        return values | {"baseline": baseline, "gains": gains}

    @cached_property
    def circumstances(self) -> dict[str, Any]:
        """Where, when and with which versions the table was made; each cell says where and when it ran."""
        return {"commit": commit(), "machine": machine()} | provenance()

    def identity(self) -> dict[str, Any]:
        """Return what identifies the suite, as plain values."""
        return {
            "suite": plain(self.suite.file.model_dump(mode="json")),
            "changes": plain(self.suite.changes),
        }


def plain(value: Any) -> Any:
    """Convert to JSON types; values that JSON lacks, such as dates and infinity, become text."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    known = value is None or isinstance(value, bool | int | str)
    return value if known or (isinstance(value, float) and math.isfinite(value)) else str(value)


def _entry(row: str, column: str, records: dict[int, dict[str, Any]]) -> Entry:
    """Make an entry from records by seed; if one failed, the mean over the others would mislead."""
    if failed := _failures(records):
        return Entry(row, column, {}, None, None, None, None, [], failed)
    metrics = [record["metrics"] for record in records.values()]
    scored = all(m["scores"] for m in metrics)
    judged = scored and all(KNN_ACCURACY in m["scores"] for m in metrics)
    peaks = [part["peak_memory_mib"] or 0 for m in metrics for part in (m, m["features_cost"])]
    return Entry(
        row,
        column,
        {s: Spread.of([100 * m["scores"][s] for m in metrics]) for s in SCORES} if scored else {},
        Spread.of([100 * m["scores"][KNN_ACCURACY] for m in metrics]) if judged else None,
        Spread.of([sum(m["features_cost"]["seconds"].values()) for m in metrics]),
        Spread.of([_after_features(m) for m in metrics]),
        max(peaks) or None,
        sorted({warning for m in metrics for warning in m["warnings"]}),
        [],
    )


def _failures(records: dict[int, dict[str, Any]]) -> list[str]:
    """Return each reason once, with the seeds that it stopped unless it stopped all of them."""
    seeds: dict[str, list[str]] = {}
    for seed, record in records.items():
        if "failed" in record:
            seeds.setdefault(record["failed"], []).append(str(seed))
    return [
        reason if len(stopped) == len(records) else f"seed {', '.join(stopped)}: {reason}"
        for reason, stopped in seeds.items()
    ]


def _after_features(metrics: dict[str, Any]) -> float:
    before = {*NOT_COUNTED, *metrics["features_cost"]["seconds"]}
    return sum(seconds for stage, seconds in metrics["seconds"].items() if stage not in before)


def source_digest(registry: Registry) -> str:
    """Compute the digest of the code of a cell: source of framework and plugins, and all versions.

    The version alone would not distinguish cells of two states of a working copy.
    """
    state = hashlib.blake2b(digest_size=12)
    providers = sorted({(e.provider.distribution, e.provider.version) for e in registry.entries})
    made_with = provenance()
    state.update(repr((providers, made_with["python"], made_with["versions"])).encode())
    for package in sorted({__package__.partition(".")[0], *registry.packages}):
        for name, file in package_sources(package):
            state.update(name.encode() + file.read_bytes())
    return state.hexdigest()


def machine() -> dict[str, Any]:
    """Describe the machine that measured the figures."""
    import torch

    described: dict[str, Any] = {"processor": _processor(), "cpus": os.cpu_count()}
    if torch.cuda.is_available():
        described["gpu"] = torch.cuda.get_device_name()
    return described


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit() -> str | None:
    """Return the commit of the working copy that the code runs from, if any; ``-dirty`` if changed."""
    where = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(where), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "--short", "HEAD") + (
            "-dirty" if git("status", "--porcelain", "-uno") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return None


def set_aside(out: Path, results: Results) -> str | None:
    """Move results of another suite or of other code away, so that they never mix with new ones.

    Return a sentence that says so, or None if there were none.
    """
    path = out / "results.json"
    if not path.exists():
        return None
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        new = {"format": FORMAT, "source": results.source, **results.identity()}
        same = all(old[name] == value for name, value in new.items())
        stamp = str(old["created"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        same, stamp = False, datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat()
    if same:
        return None
    folder = _free(out / f"until-{re.sub('[^0-9T-]', '', stamp[:19])}")
    folder.mkdir()
    for name in ("results.json", "table.md", "table.html"):
        if (out / name).exists():
            (out / name).rename(folder / name)
    return f"results of another version or suite were in {out}; they are kept in {folder}"


def _free(path: Path) -> Path:
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def write(out: Path, results: Results, renderings: dict[str, Callable[[Results], str]]) -> None:
    """Write ``results.json`` and the table in every format; each file appears only when complete."""
    files = {"results.json": json.dumps(results.as_dict(), indent=1, allow_nan=False) + "\n"}
    files |= {name: render(results) for name, render in renderings.items()}
    for name, text in files.items():
        with written_whole(out / name) as temporary_path:
            temporary_path.write_text(text, encoding="utf-8", errors="surrogateescape")

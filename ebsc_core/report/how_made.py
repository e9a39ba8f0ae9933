"""Describe how a run was made, with the command that repeats it."""

from __future__ import annotations

from typing import Any

from ebsc_core.report.formatting import command, lines, shown
from ebsc_core.runs.store.directory import CONFIG
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.training.state import MIXED
from ebsc_core.utils.progress import clock


def made(run: SavedRun) -> dict[str, Any]:
    """Return components and their suppliers, stages and their time, versions, configuration and command."""
    provenance, metrics = run.provenance, run.metrics
    seconds = metrics.get("seconds") or {}
    longest = max(seconds.values(), default=0.0) or 1.0
    cost = (metrics.get("features_cost") or {}).get("seconds") or {}
    reused = {name: value for name, value in cost.items() if name not in seconds}
    text = (run.path / CONFIG).read_text(encoding="utf-8", errors="surrogateescape")
    return {
        "suppliers": [
            (section, shown(_named(run, section)), shown(supplier))
            for section, supplier in _table(provenance, "parts").items()
            if section != "objective" or metrics.get("training")  # without training, the run did not use it
        ],
        "stages": [(shown(name), _time(value), value / longest) for name, value in seconds.items()],
        "reused": ", ".join(f"{shown(name)} {clock(value)}" for name, value in reused.items()),
        "peak": metrics.get("peak_memory_mib"),
        "versions": [(shown(name), shown(v)) for name, v in _table(provenance, "versions").items()]
        + [(name, shown(provenance[name])) for name in ("python", "platform") if name in provenance],
        "configuration": lines(text),
        "command": command("run --config", run.path / CONFIG),
        "mixed": any(MIXED in warning for warning in metrics.get("warnings") or []),
        "rebuild": command("report", run.path),
    }


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else clock(seconds)


def _table(tables: dict[str, Any], name: str) -> dict[str, Any]:
    table = tables.get(name)
    return table if isinstance(table, dict) else {}


def _named(run: SavedRun, section: str) -> Any:
    head, _, rest = section.partition(".")
    return rest or _table(run.tables, head).get("name", "?")

"""Provide short suites, results without computation, and cells that take milliseconds."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ebsc_core.benchmark.cell import FORMAT
from ebsc_core.benchmark.results import Results
from ebsc_core.benchmark.suite import Suite, load_suite

ONE_ROW = """title = "T"
seeds = [0]
[settings]
train.epochs = 0
[data.digits]
data.name = "digits"
[rows.knn]
coefficients.name = "knn"
"""
TWO_ROWS = ONE_ROW.replace("[0]", "[0, 1]") + '[rows.energy]\ncoefficients.name = "energy"\n'

PYTHON = sys.executable
STAND_IN = """#!{python} -IS
import json, os, signal, sys, time
from pathlib import Path
task = json.loads(sys.stdin.readline())
config, record = task["config"], Path(task["record"])
part = config["coefficients"]["name"]
outcome = {{"metrics": json.loads({metrics!r}), "wall_seconds": 1.5, "format": {format!r}}}
given = os.environ.get("OMP_NUM_THREADS", "")
outcome["threads"] = int(given) if given.isdecimal() else 16
with open({started!r}, "a") as started:
    started.write(f"{{part}} {{config.get('seed')}} {{time.time()}} {{os.environ.get('OMP_NUM_THREADS')}}\\n")
{body}
record.write_text(json.dumps(outcome))
with open({started!r}, "a") as started:
    started.write(f"end {{part}} {{config.get('seed')}} {{time.time()}}\\n")
"""

Metrics = Callable[..., dict[str, Any]]


def make_metrics(acc: float | None = 0.5, **changes: Any) -> dict[str, Any]:
    scores = None if acc is None else {"acc": acc, "nmi": acc / 2, "ari": acc / 4}
    whole: dict[str, Any] = {
        "scores": scores,
        "seconds": {"read data": 0.5, "features": 1.0, "coefficients": 2.0},
        "peak_memory_mib": 300,
        "features_cost": {"seconds": {"training": 7.0, "features": 1.0}, "peak_memory_mib": 400},
        "warnings": [],
        "training": [{"epoch": 1}],
    }
    return whole | changes


@pytest.fixture
def metrics() -> Metrics:
    """Make the part of ``metrics.json`` that a suite reads; NMI is half the accuracy, ARI a quarter."""
    return make_metrics


@pytest.fixture
def one_row() -> str:
    """Return the text of a suite of one row, one data set and one seed."""
    return ONE_ROW


@pytest.fixture
def two_rows() -> str:
    """Return the text of that suite with a second row, ``energy``, and a second seed."""
    return TWO_ROWS


@pytest.fixture
def suite(tmp_path: Path) -> Callable[..., Suite]:
    """Write a suite and read it; without a text, it is the suite of two rows."""

    def make(text: str = TWO_ROWS, settings: list[str] | None = None, baseline: str | None = None) -> Suite:
        path = tmp_path / "suite.toml"
        path.write_text(text, encoding="utf-8")
        return load_suite(path, settings or [], baseline)

    return make


@pytest.fixture
def results(suite: Callable[..., Suite]) -> Callable[..., Results]:
    """Make results of a suite; a function of row, column and seed gives the outcome of each cell.

    A number is an accuracy, a text the reason of a failure, a dict the metrics.
    """

    def make(text: str, outcome: Callable[[str, str, int], Any], **options: Any) -> Results:
        chosen, records = suite(text, **options), []
        for cell in chosen.cells():
            came = outcome(cell.row, cell.column, cell.seed)
            if isinstance(came, str):
                record = {"failed": came}
            else:
                record = {"metrics": came if isinstance(came, dict) else make_metrics(came)}
            records.append((cell, record | {"wall_seconds": 1.0, "format": FORMAT}))
        return Results(chosen, "source", records)

    return make


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Replace the processes that run cells by a small script.

    The script's body can use ``config``, ``part`` (the name of the coefficient model), ``record`` and
    ``outcome``. The function returns a file; each start and each regular end adds a line to it. A test can
    also give a whole script.
    """
    started = tmp_path / "started.txt"
    started.touch()

    def make(body: str = "", script: str = STAND_IN) -> Path:
        path = tmp_path / "python"
        path.write_text(
            script.format(
                python=PYTHON,
                metrics=json.dumps(make_metrics()),
                format=FORMAT,
                started=str(started),
                body=body,
            )
        )
        path.chmod(0o755)
        monkeypatch.setattr("ebsc_core.benchmark.runner.sys.executable", str(path))
        return started

    return make

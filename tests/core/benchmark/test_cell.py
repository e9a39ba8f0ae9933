"""One cell: what it leaves, what it says of a failure, and that it ends with whoever started it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from ebsc_core.benchmark.cell import _outcome
from ebsc_plugins.coefficients.knn import CosineNeighbors

TINY = {
    "data": {"name": "digits", "limit": 100},
    "backbone": {"name": "identity"},
    "train": {"epochs": 0},
    "coefficients": {"name": "knn"},
}


def test_comes_to_what_a_run_comes_to_and_leaves_nothing(ebsc, tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    outcome = _outcome(TINY, tmp_path / "cells" / "key.json")
    assert list((tmp_path / "cells").iterdir()) == []
    flags = ("--limit", "100", "--backbone", "identity", "--epochs", "0", "--coefficients", "knn")
    assert ebsc("run", *flags, "--out", "run").code == 0
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    for name in ("scores", "label_free", "eigenvalues", "images"):
        assert outcome["metrics"][name] == metrics[name]
    assert outcome["resolved"]["whiten"] is False
    assert outcome["resolved"]["affinity"]["form"] == "symmetrize"
    assert outcome["threads"] >= 1
    assert outcome["machine"]["cpus"] >= 1
    assert datetime.fromisoformat(outcome["created"]).tzinfo


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"name": "absent.npz"}}, "absent.npz does not exist"),
        ({"clusterer": {"name": "KMeans", "init": "no such way"}}, "no such way"),
        ({"n_clusters": 101}, "`n_clusters` is 101"),
        ({"clusterer": {"name": "no such part"}}, "unknown clusterer"),
    ],
)
def test_a_failure_is_said_and_leaves_nothing(tmp_path: Path, changes: dict, said: str) -> None:
    outcome = _outcome(TINY | changes, tmp_path / "key.json")
    assert said in outcome["failed"]
    assert "metrics" not in outcome
    assert list(tmp_path.iterdir()) == []


def test_the_fault_of_a_part_is_said_and_told_to_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(CosineNeighbors, "coefficients", lambda self, *arguments: 1 / 0)
    outcome = _outcome(TINY, tmp_path / "key.json")
    assert outcome["failed"] == "ZeroDivisionError: division by zero"
    assert list(tmp_path.iterdir()) == []
    assert "Traceback" in capfd.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="looks at a process")
def test_ends_when_whoever_started_it_is_gone(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", images=np.random.default_rng(0).integers(0, 255, (60, 8, 8), np.uint8))
    endless = TINY | {
        "data": {"name": str(tmp_path / "data.npz")},
        "n_clusters": 3,
        "coefficients": {"name": "energy"},
        "refine": {"steps": 10**9},
    }
    record = tmp_path / "cells" / "key.json"
    record.parent.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "ebsc_core.benchmark.cell"], stdin=subprocess.PIPE, text=True
    )
    assert process.stdin
    process.stdin.write(json.dumps({"config": endless, "record": str(record)}) + "\n")
    process.stdin.flush()
    until = time.time() + 60
    while not list(record.parent.glob(".*.work")) and time.time() < until:
        assert process.poll() is None
        time.sleep(0.05)
    process.stdin.close()  # as the end of the other process does
    assert process.wait(timeout=30) == 1
    assert not record.exists()

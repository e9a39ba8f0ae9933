"""Whole suites in real processes: figures, commands, shared features, and ends that were not foreseen."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from sklearn.datasets import load_digits

HEAD = """
title = "Tiny"
seeds = {seeds}
baseline = "knn"
[settings]
train.epochs = 0
backbone.name = "identity"
data.limit = 200
refine.steps = 5
"""
DIGITS = '[data.digits]\ndata.name = "digits"\n'
ROWS = """
[rows.knn]
coefficients.name = "knn"
[rows."energy, 5 | row"]
coefficients = { name = "energy", hidden = 16 }
top_k = 5
clusterer.n_init = 3
refine.lr = 5e-4
"""

posix = pytest.mark.skipif(os.name != "posix", reason="signals and process groups")


def records(out: Path) -> dict[str, int]:
    """The records of finished cells and when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in (out / "cells").glob("*.json")}


def test_a_suite_and_the_commands_it_prints(
    ebsc: Any, shell_words: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my data").mkdir()
    digits = load_digits()
    images = (digits.images[:400] * 15).astype(np.uint8)
    np.savez(tmp_path / "my data" / "a set.npz", images=images, labels=digits.target[:400])
    monkeypatch.setenv("MY_DATA", str(tmp_path / "my data"))
    data = '[data."a set"]\ndata.name = "$MY_DATA/a set.npz"\n'
    (tmp_path / "tiny.toml").write_text(HEAD.format(seeds="[4]") + data + ROWS)
    (tmp_path / "queue.py").write_text("raise RuntimeError('of the current folder')")
    done = ebsc("benchmark", "tiny.toml", "--out", "out")
    assert done.code == 0, done.err
    saved = json.loads((tmp_path / "out/results.json").read_text())
    scores = {cell["row"]: cell["scores"] for cell in saved["cells"]}
    assert len(scores) == 2
    assert all(0.5 < found["acc"] < 1 for found in scores.values())
    assert saved["cells"][1]["settings"]["clusterer"]["n_init"] == 3
    commands = [line for line in (tmp_path / "out/table.md").read_text().splitlines() if "ebsc run" in line]
    assert len(commands) == 2
    for command, (row, expected) in zip(commands, scores.items(), strict=True):
        again = ebsc(*shell_words(command), "--out", row.partition(",")[0])
        assert again.code == 0, again.err
        metrics = json.loads((tmp_path / row.partition(",")[0] / "metrics.json").read_text())
        assert metrics["scores"] == expected
    before = records(tmp_path / "out")
    assert ebsc("benchmark", "tiny.toml", "--out", "out").code == 0
    assert records(tmp_path / "out") == before


def test_rows_that_share_features_train_once(ebsc: Any, tmp_path: Path) -> None:
    small = 'data.limit = 60\ntrain = { epochs = 1, batch_size = 30 }\nbackbone.name = "resnet10t"\n'
    head = f'title = "T"\nseeds = [0]\n[settings]\n{small}refine.steps = 5\n'
    (tmp_path / "two.toml").write_text(head + DIGITS + ROWS)
    done = ebsc("benchmark", "two.toml", "--out", "out", "--jobs", "2", "--cache", "kept")
    assert done.code == 0, done.err
    assert len(list((tmp_path / "kept").glob("*/features.h5"))) == 1
    cells = json.loads((tmp_path / "out/results.json").read_text())["cells"]
    assert [("training" in cell["seconds"]) for cell in cells] == [True, False]
    assert cells[0]["features_cost"] == cells[1]["features_cost"]
    assert cells[0]["features_cost"]["seconds"]["training"] > 0
    said = set(re.findall(r"OMP_NUM_THREADS=(\d+) ebsc run", (tmp_path / "out/table.md").read_text()))
    assert {str(cell["threads"]) for cell in cells} == said


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``ebsc benchmark`` in a process group of its own."""
    started: list[subprocess.Popen[str]] = []

    def launch(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "ebsc_cli", "benchmark", *arguments]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield launch
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(so: Callable[[], object], seconds: float = 90) -> Any:
    until = time.time() + seconds
    while time.time() < until:
        if found := so():
            return found
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def cells_running() -> list[int]:
    """Processes that run cells of this test, wherever their parent went."""
    own = os.environ["EBSC_CACHE_DIR"].encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:
            continue
        if b"ebsc_core.benchmark.cell" in command and own in environment:
            found.append(int(folder.name))
    return found


@posix
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")
def test_killed_half_way_it_goes_on_where_it_was(ebsc: Any, start: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "tiny.toml").write_text(HEAD.format(seeds="[0, 1]") + DIGITS + ROWS.partition('[rows."')[0])
    process = start("tiny.toml", "--out", "out")
    logs = wait_for(lambda: list(out.glob("cells/*.log")))
    wait_for(lambda: set(out.glob("cells/*.log")) - set(logs))  # the next one has begun
    first = records(out)
    assert len(first) == 1
    wait_for(lambda: len(cells_running()) == 1)  # its log is there a moment before it
    process.kill()
    process.wait()
    wait_for(lambda: not cells_running(), 30)  # the cell does not outlive it
    assert not (out / "results.json").exists()
    assert records(out) == first
    done = ebsc("benchmark", "tiny.toml", "--out", "out")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == "1 of 2 cells are finished already"
    assert "[2/2] knn · digits · seed 1" in done.out
    assert first.items() <= records(out).items()
    assert {path.suffix for path in (out / "cells").iterdir()} == {".json"}


@posix
def test_interrupted_as_on_a_terminal(start: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "tiny.toml").write_text(HEAD.format(seeds="[0]") + DIGITS + ROWS)
    process = start("tiny.toml", "--out", "out", "--jobs", "2")
    wait_for(lambda: list(out.glob("cells/*.log")))
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert process.stderr.read() == "ebsc: interrupted; finished cells are kept, the same command goes on\n"
    assert list((out / "cells").iterdir()) == []
    assert cells_running() == []


@posix
@pytest.mark.slow
def test_when_the_time_is_up_training_is_kept_and_goes_on(ebsc: Any, tmp_path: Path) -> None:
    small = 'data.limit = 800\ntrain = { epochs = 40000, batch_size = 64 }\nbackbone.name = "resnet10t"\n'
    head = f'title = "T"\nseeds = [0]\n[settings]\n{small}refine.steps = 5\n'
    (tmp_path / "tiny.toml").write_text(head + DIGITS + "[rows.knn]\n")
    words = ("benchmark", "tiny.toml", "--out", "out", "--cache", "kept")
    minutes, positions = 0.2, []
    while len(set(positions)) < 2 and minutes < 4:  # a busy machine takes that long to start
        assert ebsc(*words, "--minutes", minutes).code == 1
        assert cells_running() == []
        assert "not finished when the time was up" in (tmp_path / "out/table.md").read_text()
        positions += [
            training_position(checkpoint) for checkpoint in (tmp_path / "kept").glob("*.training.safetensors")
        ]
        minutes *= 1.5
    assert len(set(positions)) == 2
    assert positions == sorted(positions)


def training_position(checkpoint: Path) -> tuple[int, int]:
    """The epoch, and images of it, that kept training is at."""
    with safe_open(checkpoint, framework="pt") as file:
        record = json.loads(file.metadata()["record"])
    return record["epoch"], record["images"]


def test_features_from_elsewhere_are_data_of_a_suite(
    ebsc: Any, shell_words: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, labels = load_digits(return_X_y=True)
    np.savez(tmp_path / "rows.npz", features=rows[:200], labels=labels[:200])
    monkeypatch.setenv("MINE", str(tmp_path))
    data = '[data.mine]\nfeatures.path = "$MINE/rows.npz"\n'
    both = '[rows.knn]\ncoefficients.name = "knn"\n[rows.omp]\ncoefficients.name = "omp"\n'
    (tmp_path / "mine.toml").write_text('title = "T"\nseeds = [0]\n' + data + both)
    done = ebsc("benchmark", "mine.toml", "--out", "out")
    assert done.code == 0, done.err
    cells = json.loads((tmp_path / "out/results.json").read_text())["cells"]
    assert all(cell["scores"]["acc"] > 0.2 for cell in cells)
    (command, _) = [
        line for line in (tmp_path / "out/table.md").read_text().splitlines() if "ebsc run" in line
    ]
    again = ebsc(*shell_words(command), "--out", "again")
    assert again.code == 0, again.err
    assert json.loads((tmp_path / "again/metrics.json").read_text())["scores"] == cells[0]["scores"]
    np.savez(tmp_path / "rows.npz", features=rows[:150], labels=labels[:150])
    assert "finished already" not in ebsc("benchmark", "mine.toml", "--out", "out").out

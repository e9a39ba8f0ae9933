"""Signals to runs in two processes: what was trained is kept, and no process works for nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

COMMAND = (
    *(sys.executable, "-m", "ebsc_cli", "run", "--limit", "256", "--epochs", "1000", "--batch-size", "64"),
    *("--backbone", "resnet10t", "--coefficients", "knn", "--precision", "fp32", "--device", "cpu"),
    *("--devices", "2", "--out", "run", "--cache", "cache"),
)
PATIENCE = 120
KEPT = "ebsc: interrupted; training is kept and goes on from epoch"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a run that has begun to train when the fixture returns."""
    quiet = {"PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore", "COLUMNS": "250", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        COMMAND,
        cwd=tmp_path,
        env=os.environ | quiet,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    while not (line := process.stdout.readline()).startswith("training: "):
        assert line, process.communicate()[1]
    yield process
    process.kill()
    for pid in ranks(tmp_path):
        os.kill(pid, signal.SIGKILL)


def ranks(folder: Path) -> list[int]:
    """The processes that work in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if path.readlink() == folder:
                found.append(int(path.parent.name))
        except OSError:  # it has ended
            continue
    return found


def wait_for(happened, seconds: float = PATIENCE) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_launcher_keeps_training(run, tmp_path, number):
    run.send_signal(number)
    _, err = run.communicate(timeout=PATIENCE)
    assert run.returncode == 128 + number
    assert err.startswith(KEPT), err
    assert err.count("\n") == 1
    assert (tmp_path / "run/unfinished.toml").is_file()
    wait_for(lambda: not ranks(tmp_path))


@pytest.mark.slow
def test_a_request_to_save_reaches_the_processes(run, tmp_path):
    run.send_signal(signal.SIGUSR1)
    wait_for(lambda: list(tmp_path.glob("cache/*.training.safetensors")))
    assert run.poll() is None
    run.send_signal(signal.SIGTERM)
    assert run.communicate(timeout=PATIENCE)[1].startswith(KEPT)


@pytest.mark.slow
def test_processes_end_soon_after_their_launcher_is_killed(run, tmp_path):
    assert len(ranks(tmp_path)) >= 3
    run.kill()
    wait_for(lambda: not ranks(tmp_path), 60)
    assert list(tmp_path.glob("cache/*.training.safetensors"))
    assert (tmp_path / "run/unfinished.toml").is_file()

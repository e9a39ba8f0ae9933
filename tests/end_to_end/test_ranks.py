"""Runs in several processes, started as people start them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest

QUICK = ("run", "--limit", "60", "--backbone", "identity", "--epochs", "0", "--set", "refine.steps=0")
TRAINED = (
    *("run", "--limit", "256", "--epochs", "1", "--batch-size", "128", "--backbone", "resnet10t"),
    *(
        "--set",
        "joint.form=reconstruction",
        "--set",
        "refine.steps=0",
        "--coefficients",
        "knn",
        "--precision",
        "fp32",
    ),
)
LAUNCHED = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
PATIENCE = 300
# What torch warns of by itself, in some versions, is not what these tests read an error stream for.
NO_WARNINGS_OF_TORCH = {"PYTHONWARNINGS": "ignore::FutureWarning,ignore::UserWarning"}
# A process that fails in its third step, under the launcher's RANK 1.
FAILING = """
import os, sys
from ebsc_cli.app import main
from ebsc_core.utils.errors import TrainingError
from ebsc_core.training.step import JointStep

steps, call = [], JointStep.__call__

def failing(*arguments, **named):
    steps.append(1)
    if len(steps) == 3 and os.environ["RANK"] == "1":
        raise TrainingError("spilt tea")
    return call(*arguments, **named)

JointStep.__call__ = failing
main()
"""


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def ended(process: subprocess.Popen[str]) -> Ended:
    try:
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return Ended(process.returncode, out, err)


def started(folder: Path, *command: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"COLUMNS": "250"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def said(err: str) -> list[str]:
    """Our own lines of an error stream that launchers write to as well."""
    return [line for line in err.splitlines() if line.startswith("ebsc: ")]


def test_torchrun_trains_what_one_process_does(ebsc, tmp_path):
    done = ended(started(tmp_path, *LAUNCHED, "-m", "ebsc_cli", *TRAINED, "--out", "two"))
    assert done.code == 0, done.err
    assert done.out.count("run directory: two") == 1
    assert "in each of 2 processes" in done.out
    assert ebsc(*TRAINED, "--cache", "none", "--out", "one").code == 0
    one, two = (h5py.File(tmp_path / run / "features.h5") for run in ("one", "two"))
    for name in ("features", "embeddings"):
        np.testing.assert_allclose(two[name], one[name], rtol=0.02, atol=0.02)
    assert np.array_equal(two["ids"][:], one["ids"][:])
    # The processes have kept for one what they have trained together.
    assert "features reused" in ebsc(*TRAINED, "--out", "again").out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "one", "two"]


@pytest.mark.slow
def test_a_process_that_fails_midway_ends_the_others(tmp_path):
    """Without any launcher, which would end them sooner."""
    (tmp_path / "failing.py").write_text(FAILING)
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2"}
    command = (sys.executable, "failing.py", *TRAINED, "--batch-size", "64", "--out", "run")
    both = [
        started(tmp_path, *command, RANK=rank, LOCAL_RANK=rank, LOCAL_WORLD_SIZE="2", **meeting)
        for rank in "01"
    ]
    first, failing = map(ended, both)
    assert (first.code, failing.code) == (2, 2)
    assert said(failing.err) == ["ebsc: error: process 1 of 2: spilt tea"]
    assert said(first.err) == [
        "ebsc: error: process 0 of 2 lost the others; see the error of the process that ended first; "
        "to go on: ebsc resume run"
    ]
    assert "Traceback" not in first.err + failing.err
    # What the first had trained until then is kept.
    assert {path.name for path in tmp_path.iterdir()} == {"failing.py", "run"}
    assert [path.name for path in (tmp_path / "run").iterdir() if path.is_file()] == ["unfinished.toml"]


@pytest.mark.slow
def test_devices_starts_processes_that_ctrl_c_ends(tmp_path):
    command = (sys.executable, "-m", "ebsc_cli", *TRAINED, "--epochs", "1000", "--devices", "2")
    command = (*command, "--device", "cpu", "--out", "run")
    run = started(tmp_path, *command, PYTHONUNBUFFERED="1", **NO_WARNINGS_OF_TORCH)
    assert run.stdout
    while "precision" not in (line := run.stdout.readline()):  # the last line before training
        assert line, run.communicate()[1]
    time.sleep(2)
    run.send_signal(signal.SIGINT)
    done = ended(run)
    assert done.code == 130
    assert done.err.splitlines() == said(done.err)
    assert [line.partition(";")[0] for line in said(done.err)] == ["ebsc: interrupted"]
    # A directory if there is something to go on from.
    assert [path.name for path in tmp_path.iterdir()] == ["run"] * ("to go on: ebsc resume run" in done.err)


@pytest.mark.parametrize(
    ("devices", "line"),
    [
        ("9999", "--devices is 9999 but this machine has"),
        ("0", "neither 'all' nor a number from 1 up"),
        ("some", "neither 'all' nor a number from 1 up"),
    ],
)
def test_devices_that_cannot_be(ebsc, tmp_path, devices, line):
    done = ebsc(*QUICK, "--device", "cpu", "--devices", devices)
    assert done.code == 2
    assert line in done.err
    assert not list(tmp_path.iterdir())


def test_one_device_is_an_ordinary_run(ebsc):
    for devices in ("1", "all"):
        done = ebsc(*QUICK, "--device", "cpu", "--devices", devices)
        assert done.code == 0, done.err
        assert "processes" not in done.out


def test_several_processes_for_one_file_of_features_are_one_line(tmp_path):
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).random((40, 4)))
    words = ("cluster", "rows.npy", "--n-clusters", "3", "--out", "run")
    environment = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    done = ended(started(tmp_path, sys.executable, "-m", "ebsc_cli", *words, **environment))
    assert done.code == 2
    assert said(done.err) == ["ebsc: error: features are clustered by one process, and 2 run; start only one"]
    assert not (tmp_path / "run").exists()

"""``ebsc resume``: runs that were stopped or killed are finished as if nothing had been."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.runs.store.unfinished import UNFINISHED, is_unfinished

TRAINED = (
    *("run", "--limit", "120", "--epochs", "3", "--batch-size", "40", "--backbone", "resnet10t"),
    *("--set", "joint.form=reconstruction", "--set", "refine.steps=10", "--precision", "fp32"),
)
# Training is kept after every step; the process kills itself when a function is called so many times.
KILLED = """
import os, signal, sys
from importlib import import_module
from ebsc_cli.app import main
from ebsc_core.training import checkpoint

checkpoint.EVERY = 0.0
module, _, name = sys.argv.pop(1).rpartition(".")
times = int(sys.argv.pop(1))
owner = import_module(module.partition(":")[0])
owner = getattr(owner, module.partition(":")[2]) if ":" in module else owner
real, calls = getattr(owner, name), []

def counted(*arguments, **named):
    calls.append(1)
    if len(calls) == times:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **named)

setattr(owner, name, counted)
main()
"""
IN_TRAINING = ("ebsc_core.training.step:JointStep.__call__", "5")
IN_WRITING = ("ebsc_core.runs.store.directory:RunDirectory.write_metrics", "1")


def killed(folder: Path, where: tuple[str, str], *arguments: str) -> None:
    command = [sys.executable, "-c", KILLED, *where, *arguments]
    done = subprocess.run(command, cwd=folder, env=dict(os.environ), capture_output=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_a_run_that_is_killed_ends_as_if_it_had_not_been(ebsc, tmp_path):
    assert ebsc(*TRAINED, "--cache", "none", "--out", "whole").code == 0
    whole = SavedRun(tmp_path / "whole")
    (tmp_path / "elsewhere").mkdir()
    killed(tmp_path, IN_TRAINING, *TRAINED, "--cache", "cache", "--out", "run")
    assert is_unfinished(tmp_path / "run")
    killed(tmp_path / "elsewhere", IN_WRITING, "resume", "../run")
    # With what it has left, and as if not even training had been kept.
    shutil.copytree(tmp_path / "run", tmp_path / "lost")
    record = tmp_path / "lost" / UNFINISHED
    _, _, text = record.read_text().partition("\n")  # without the line that guards it
    record.write_text(text.replace(f'"{tmp_path}/cache"', '"none"'))
    for name, trains in (("run", False), ("lost", True)):
        done = ebsc("resume", name)
        assert done.code == 0, done.err
        assert ("warm-up training" in done.out) == trains
        saved = SavedRun(tmp_path / name)
        assert (saved.path / "assignments.csv").read_text() == (whole.path / "assignments.csv").read_text()
        assert len(saved.metrics["training"]) == 3
        assert saved.metrics["warnings"] == []
        assert saved.tables == whole.tables | {"provenance": saved.provenance}
        assert set(os.listdir(saved.path)) == set(os.listdir(whole.path))


@pytest.mark.parametrize("arguments", [(), ("--config", f"run/{UNFINISHED}")], ids=["", "config"])
def test_a_new_run_does_not_take_an_unfinished_one_s_place(ebsc, tmp_path, arguments):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / UNFINISHED).touch()
    done = ebsc("run", *arguments, "--out", "run")
    assert done.code == 2
    assert done.err == "ebsc: error: run is unfinished; to go on: ebsc resume run, or choose another --out\n"


def test_what_cannot_be_resumed_is_one_line(ebsc, tmp_path):
    quick = ("--limit", "50", "--backbone", "identity", "--epochs", "0", "--set", "refine.steps=1")
    assert ebsc("run", *quick, "--out", "run").code == 0
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / UNFINISHED).write_text("backbone = 3")
    for path, said in (
        ("run", "run is finished; nothing is left to do"),
        ("none", "none does not exist; give the directory of an unfinished run"),
        ("run/run.toml", "run/run.toml is a file; give the directory of an unfinished run"),
        (".", ". holds no run"),
        ("damaged", "damaged/unfinished.toml: 'backbone' is a section"),
    ):
        done = ebsc("resume", path)
        assert done.code == 2
        assert done.err.startswith(f"ebsc: error: {said}")
        assert done.err.count("\n") == 1


FORGED = '{"file": "CACHEDIR.TAG", "made_from": {"\\u001b": 1}}'


@pytest.mark.parametrize("content", ["link", "[" * 100_000, FORGED], ids=["link", "deep", "forged"])
def test_a_note_of_somebody_else_does_no_harm(ebsc, tmp_path, content: str):
    killed(tmp_path, IN_TRAINING, *TRAINED, "--out", "run")
    (tmp_path / "precious").write_text("{}")
    note = tmp_path / "run/.unfinished/kept.json"
    note.unlink()
    if content == "link":
        note.symlink_to(tmp_path / "precious")
    else:
        note.write_text(content)
    done = ebsc("resume", "run")
    assert done.code == 0, done.err
    assert "changed since this run was stopped" not in done.err
    assert (tmp_path / "precious").read_text() == "{}"
    assert not (tmp_path / "run/kept.json").exists()


@pytest.mark.parametrize("images", [60, 61])
def test_a_training_that_starts_anew_since_the_images_have_changed_says_so(ebsc, tmp_path, images: int):
    def write(n: int) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (n, 16, 16), np.uint8)
        np.savez(tmp_path / "some.npz", images=pixels)

    write(60)
    quick = ("--n-clusters", "3", "--epochs", "2", "--batch-size", "20", "--backbone", "resnet10t")
    words = ("run", "--data", "some.npz", *quick, "--set", "refine.steps=0", "--precision", "fp32")
    killed(tmp_path, IN_TRAINING, *words, "--out", "run")
    write(images)
    done = ebsc("resume", "run")
    assert done.code == 0, done.err
    told = "warning: its images changed since this run was stopped, so the training starts anew"
    assert (told in done.err) == (images == 61)
    assert not (tmp_path / "run" / ".unfinished").exists()


def test_a_training_that_starts_anew_since_the_cache_is_another_says_so(ebsc, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 16, 16), np.uint8)
    np.savez(tmp_path / "some.npz", images=pixels)
    quick = ("--n-clusters", "3", "--epochs", "2", "--batch-size", "20", "--backbone", "resnet10t")
    words = ("run", "--data", "some.npz", *quick, "--set", "refine.steps=0", "--precision", "fp32")
    killed(tmp_path, IN_TRAINING, *words, "--cache", "cache", "--out", "run")
    (checkpoint,) = (tmp_path / "cache").glob("*.training.safetensors")
    done = ebsc("resume", "run", "--cache", "none")
    assert done.code == 0, done.err
    (told,) = (line for line in done.err.splitlines() if "starts anew" in line)
    assert f"its checkpoint is in another cache ({checkpoint})" in told
    assert told.endswith(f"ebsc resume run --cache {tmp_path / 'cache'}")
    assert checkpoint.exists()

"""Runs that run out of memory or are stopped, and go on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from ebsc_core.data.features.store import FeatureWriter
from ebsc_core.training.step import JointStep

RUN = (
    *("run", "--limit", "120", "--epochs", "3", "--backbone", "resnet10t"),
    *("--set", "joint.form=reconstruction", "--set", "refine.steps=10"),
)
FORTY = ("--batch-size", "40")


def fail() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand more")


@pytest.fixture
def before_step(monkeypatch):
    """Do something before the step of this number."""
    real = JointStep.__call__

    def do(number: int, act: Any) -> None:
        taken = 0

        def call(self: JointStep, *arguments: Any, **named: Any) -> Any:
            nonlocal taken
            taken += 1
            if taken == number:
                act()
            return real(self, *arguments, **named)

        monkeypatch.setattr(JointStep, "__call__", call)

    return do


def kept(tmp_path):
    return list((tmp_path / "cache").glob("*.training.safetensors"))


def test_a_run_without_memory_goes_on_with_a_smaller_batch(ebsc, before_step, tmp_path):
    cache = ("--cache", "cache", "--out", "run")
    before_step(4, fail)
    done = ebsc(*RUN, *cache, "--batch-size", "40")
    assert done.code == 2
    assert done.err == (
        "ebsc: error: out of memory on cpu in batches of 40; lower --batch-size; training is kept and goes "
        "on from epoch 2 of 3; to go on: ebsc resume run\n"
    )
    assert len(kept(tmp_path)) == 1
    done = ebsc("resume", "run", "--batch-size", "20")
    assert done.code == 0, done.err
    assert "training goes on from epoch 2 of 3" in done.out
    assert "trained in batches of 40" in done.err
    assert not kept(tmp_path)
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert len(metrics["training"]) == 3
    assert any("batches of 40" in warning for warning in metrics["warnings"])


def test_a_run_with_another_batch_size_takes_up_no_training_but_its_own(ebsc, before_step, tmp_path):
    """The other run may still be training, or the two may be compared."""
    before_step(4, fail)
    assert ebsc(*RUN, *FORTY, "--cache", "cache", "--out", "run").code == 2
    checkpoints = kept(tmp_path)
    done = ebsc(*RUN, "--batch-size", "20", "--cache", "cache", "--out", "other")
    assert done.code == 0, done.err
    assert "training goes on" not in done.out
    assert done.err == ""
    assert kept(tmp_path) == checkpoints
    done = ebsc("resume", "run")
    assert "training goes on from epoch 2 of 3" in done.out
    assert done.err == ""
    assert not kept(tmp_path)


def same_features(one: Path, two: Path) -> None:
    with h5py.File(one / "features.h5") as first, h5py.File(two / "features.h5") as second:
        np.testing.assert_array_equal(first["features"][:], second["features"][:])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing stops."""
    folder = tmp_path_factory.mktemp("whole")
    words = [sys.executable, "-m", "ebsc_cli", *RUN, *FORTY, "--cache", "none", "--out", "run", "--no-report"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    return folder / "run"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_run_that_a_signal_stops_ends_as_if_it_had_not(ebsc, before_step, whole, tmp_path, name):
    number = getattr(signal, name)

    def several() -> None:
        for _ in range(1 if name == "SIGINT" else 3):  # queue and launcher both send it
            signal.raise_signal(number)

    before_step(5, several)
    done = ebsc(*RUN, *FORTY, "--cache", "cache", "--out", "run")
    assert done.code == 128 + number
    assert done.err == (
        "ebsc: interrupted; training is kept and goes on from epoch 2 of 3; to go on: ebsc resume run\n"
    )
    assert ebsc("resume", "run").code == 0
    same_features(whole, tmp_path / "run")
    assert not kept(tmp_path)


def test_a_run_that_is_asked_to_save_saves_and_goes_on(ebsc, before_step, whole, tmp_path):
    found: list[bool] = []

    def ask() -> None:
        signal.raise_signal(signal.SIGUSR1)
        before_step(2, lambda: found.append(bool(kept(tmp_path))))

    before_step(5, ask)
    done = ebsc(*RUN, *FORTY, "--cache", "cache", "--out", "run")
    assert (done.code, done.err, found) == (0, "", [True])
    assert done.out.count("asked to save; training is kept and goes on from epoch 2 of 3") == 1
    same_features(whole, tmp_path / "run")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("command", ["cluster", "predict", "features"])
def test_what_does_not_train_leaves_nothing(ebsc, monkeypatch, tmp_path, name, command):
    """Features that are extracted leave what the cache keeps of them."""
    number, kept_folder = getattr(signal, name), tmp_path / "kept"
    monkeypatch.setenv("EBSC_CACHE_DIR", str(kept_folder))
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 5)))
    cluster = ("cluster", "x.npy", "--n-clusters", "2", "--coefficients", "knn", "-q")
    images = ("--backbone", "identity")
    run = ("run", *images, "--limit", "60", "--epochs", "0", "--coefficients", "knn", "-q")
    words: dict[str, tuple[str, ...]] = {
        "cluster": (*cluster, "--out", "new"),
        "predict": ("predict", "run", "digits", "-o", "new.csv", "--features", "new.h5", "-q"),
        "features": ("features", "extract", "digits", *images, "-o", "new.h5"),
    }
    if command == "predict":
        assert ebsc(*run, "--out", "run").code == 0

    def there() -> set[Path]:
        return {path for path in tmp_path.rglob("*") if not path.is_relative_to(kept_folder)}

    before, append = there(), FeatureWriter.append

    def stopped(*arguments: Any) -> None:
        append(*arguments)
        signal.raise_signal(number)

    monkeypatch.setattr(FeatureWriter, "append", stopped)
    done = ebsc(*words[command])
    assert done.code == 128 + number
    kept_rows = "512 of 1797 images are kept, the same command goes on"
    assert done.err == f"ebsc: interrupted; {kept_rows if command == 'features' else 'nothing was written'}\n"
    assert there() == before


def test_without_a_cache_nothing_is_kept(ebsc, before_step, tmp_path):
    before_step(4, fail)
    done = ebsc(*RUN, "--batch-size", "40", "--cache", "none")
    assert done.err == "ebsc: error: out of memory on cpu in batches of 40; lower --batch-size\n"


def test_features_that_take_too_much_memory_cost_no_training(ebsc, monkeypatch, tmp_path):
    with monkeypatch.context() as patched:
        patched.setattr("ebsc_core.runs.training_stage.feature_blocks", lambda *arguments, **named: fail())
        done = ebsc(*RUN, "--cache", "cache")
    assert done.code == 2
    assert "in extracting features, one image at a time" in done.err
    assert "training is done and kept" in done.err
    done = ebsc(*RUN, "--cache", "cache", "--out", "run")
    assert done.code == 0, done.err
    assert "training:" not in done.out
    assert len(json.loads((tmp_path / "run/metrics.json").read_text())["training"]) == 3

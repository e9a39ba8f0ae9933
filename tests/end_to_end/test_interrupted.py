"""Runs that run out of memory or are stopped, and go on."""

from __future__ import annotations

import json
import signal
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from ebsc_core.training.step import JointStep

RUN = ("run", "--limit", "120", "--epochs", "3", "--backbone", "resnet10t", "--set", "refine.steps=10")


def fail() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand more")


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


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


def test_a_run_that_is_stopped_ends_as_if_it_had_not_been(ebsc, before_step, tmp_path):
    flags = (*RUN, "--batch-size", "40")
    assert ebsc(*flags, "--cache", "none", "--out", "whole").code == 0
    before_step(5, interrupt)
    done = ebsc(*flags, "--cache", "cache", "--out", "run")
    assert done.code == 130
    assert done.err == (
        "ebsc: interrupted; training is kept and goes on from epoch 2 of 3; to go on: ebsc resume run\n"
    )
    assert ebsc("resume", "run").code == 0
    with h5py.File(tmp_path / "whole/features.h5") as one, h5py.File(tmp_path / "run/features.h5") as two:
        np.testing.assert_array_equal(one["features"][:], two["features"][:])
    assert not kept(tmp_path)


def test_without_a_cache_nothing_is_kept(ebsc, before_step, tmp_path):
    before_step(4, fail)
    done = ebsc(*RUN, "--batch-size", "40", "--cache", "none")
    assert done.err == "ebsc: error: out of memory on cpu in batches of 40; lower --batch-size\n"


def test_features_that_take_too_much_memory_cost_no_training(ebsc, monkeypatch, tmp_path):
    with monkeypatch.context() as patched:
        patched.setattr("ebsc_core.runs.training_stage.feature_blocks", lambda *arguments: fail())
        done = ebsc(*RUN, "--cache", "cache")
    assert done.code == 2
    assert "data.size" in done.err
    assert "training is done and kept" in done.err
    done = ebsc(*RUN, "--cache", "cache", "--out", "run")
    assert done.code == 0, done.err
    assert "training:" not in done.out
    assert len(json.loads((tmp_path / "run/metrics.json").read_text())["training"]) == 3

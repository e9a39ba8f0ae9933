"""Whole runs on images that are streamed from disk."""

from __future__ import annotations

import json
import tomllib

import h5py
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

RUN = (
    "--data",
    "pictures",
    "--epochs",
    "2",
    "--batch-size",
    "16",
    "--backbone",
    "resnet10t",
    "--precision",
    "fp32",
    "--set",
    "refine.steps=5",
)
STREAM = ("--set", "data.stream=true", "--set", "data.workers=1")


@pytest.fixture
def pictures(tmp_path):
    """40 digits of mixed sizes as PNG and JPEG, in folders by class."""
    digits = load_digits()
    for i in range(40):
        pixels = (digits.images[i] * 15).astype(np.uint8)
        image = Image.fromarray(pixels).resize((20 + i % 3, 18 + i % 4))
        file = tmp_path / "pictures" / str(digits.target[i] % 2) / f"{i}.{'jpg' if i % 2 else 'png'}"
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(file)
    return tmp_path / "pictures"


def rows(path):
    with h5py.File(path / "features.h5") as file:
        return {name: file[name][:] for name in ("features", "embeddings", "ids", "labels")}


def test_a_streamed_run_is_the_run_in_memory(ebsc, pictures, tmp_path):
    for out, flags in (
        ("held", ()),
        ("streamed", STREAM),
        ("tested", (*STREAM, "--set", "protocol=train-test")),
    ):
        done = ebsc("run", *RUN, *flags, "--out", out)
        assert done.code == 0, done.err
        assert ("streamed from disk by 1 process" in done.out) == (out != "held")
    held, streamed = rows(tmp_path / "held"), rows(tmp_path / "streamed")
    for name, values in held.items():
        np.testing.assert_array_equal(streamed[name], values, err_msg=name)
    one, other = (json.loads((tmp_path / out / "metrics.json").read_text()) for out in ("held", "streamed"))
    assert [epoch["loss"] for epoch in one["training"]] == [epoch["loss"] for epoch in other["training"]]
    assert one["scores"] == other["scores"]
    assert one["features_cost"]["waiting_for_images"] == 0 < other["features_cost"]["waiting_for_images"]
    assert len(rows(tmp_path / "tested")["ids"]) == 32
    # And the features are found again, though no pixel was compared.
    again = ebsc("run", *RUN, *STREAM, "--out", "again")
    assert "features reused" in again.out
    assert tomllib.loads((tmp_path / "again/run.toml").read_text())["data"]["workers"] == 1


@pytest.mark.parametrize("backbone", ["identity", "pca"])
def test_backbones_without_training_see_streamed_images(ebsc, pictures, tmp_path, backbone):
    flags = ("--data", "pictures", "--backbone", backbone, "--coefficients", "knn")
    flags += ("--set", "backbone.components=9") if backbone == "pca" else ()
    for out, more in (("held", ()), ("streamed", (*STREAM, "--set", "data.workers=0"))):
        assert ebsc("run", *flags, *more, "--out", out).code == 0
    with h5py.File(tmp_path / "held/features.h5") as one, h5py.File(tmp_path / "streamed/features.h5") as two:
        np.testing.assert_array_equal(one["features"][:], two["features"][:])


def test_a_bad_image_ends_a_streamed_run_in_one_line(ebsc, pictures, tmp_path, monkeypatch):
    for module in ("ebsc_plugins.datasets.folder", "ebsc_core.data.images.streamed"):
        monkeypatch.setattr(f"{module}.LOOKED_AT", 2)
    whole = (pictures / "0" / "0.png").read_bytes()
    (pictures / "1" / "torn.png").write_bytes(whole[: len(whole) // 2])
    done = ebsc("run", *RUN, *STREAM, "--out", "run")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert "torn.png" in done.err
    assert not (tmp_path / "run").exists()
    done = ebsc("run", *RUN, *STREAM, "--skip-bad-images", "--out", "run")
    assert done.code == 0, done.err
    assert "left out unreadable image" in done.err
    assert len(rows(tmp_path / "run")["ids"]) == 40


def test_training_that_waits_for_images_is_told_so(ebsc, pictures, monkeypatch):
    monkeypatch.setattr("ebsc_core.runs.training_stage.WAITED_SHARE", 1e-6)
    done = ebsc("run", *RUN, *STREAM, "--epochs", "1", "--out", "run")
    assert done.code == 0, done.err
    assert "% of its time" in done.err
    assert "data.workers" in done.err

"""Held-out images: they have no part in the clusters, and join them by their coefficients."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from ebsc_core.clustering.metrics import scores
from ebsc_core.data.features.whitening import Whitening
from ebsc_core.data.images.in_memory import ImageSet
from ebsc_core.data.images.split import split
from ebsc_core.utils.errors import ConfigError


def images(n: int) -> ImageSet:
    pixels = torch.arange(n).remainder(256).to(torch.uint8).view(n, 1, 1, 1)
    return ImageSet("images", pixels, [str(i) for i in range(n)], np.arange(n))


class TestSplit:
    @given(n=st.integers(2, 200), share=st.floats(0.01, 0.99), seed=st.integers(0, 2**32 - 1))
    @settings(deadline=None)
    def test_every_image_is_in_one_of_the_two(self, n: int, share: float, seed: int) -> None:
        data = images(n)
        if not 0 < round(share * n) < n:
            with pytest.raises(ConfigError, match="test_share"):
                split(data, share, seed)
            return
        train, test = split(data, share, seed)
        assert len(test) == round(share * n)
        assert sorted([*train.ids, *test.ids], key=int) == data.ids
        for part in (train, test):  # pixels, names and labels stay together
            assert part.ids == [str(label) for label in part.labels]
            assert part.images.flatten().tolist() == [int(name) % 256 for name in part.ids]

    def test_the_seed_decides(self) -> None:
        drawn = [tuple(split(images(100), 0.3, seed)[1].ids) for seed in (0, 0, 1)]
        assert drawn[0] == drawn[1] != drawn[2]

    @pytest.mark.parametrize(("n", "share"), [(2, 0.2), (2, 0.9), (10, 0.01)])
    def test_nothing_to_fit_or_test_on(self, n: int, share: float) -> None:
        with pytest.raises(ConfigError, match=rf"test_share is {share}, which leaves \d+ of {n} images"):
            split(images(n), share, 0)


# Without a cache, which would give one run the features of another.
FLAGS = (
    "--cache",
    "none",
    "--backbone",
    "identity",
    "--epochs",
    "0",
    "--set",
    "refine.steps=5",
    "--n-clusters",
    "10",
)
HELD_OUT = ("--set", "protocol=train-test", "--set", "test_share=0.25")
Rows = list[dict[str, str]]


@pytest.fixture
def run(ebsc: Any, tmp_path: Path) -> Callable[..., Rows]:
    """Runs images of digits and reads ``assignments.csv``."""
    pixels = (load_digits().images[:240] * 15).astype(np.uint8)
    labels = load_digits().target[:240]

    def go(out: str, *flags: str, images: np.ndarray = pixels, labels: np.ndarray = labels) -> Rows:
        np.savez(tmp_path / f"{out}.npz", images=images, labels=labels)
        done = ebsc("run", "--data", f"{out}.npz", *FLAGS, *flags, "--out", out)
        assert done.code == 0, done.err
        with (tmp_path / out / "assignments.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    go.pixels, go.labels = pixels, labels  # type: ignore[attr-defined]
    return go


def part(rows: Rows, name: str) -> Rows:
    return [row for row in rows if row["split"] == name]


class TestRun:
    def test_says_which_images_were_held_out(self, run: Any, tmp_path: Path) -> None:
        rows = run("run", *HELD_OUT)
        train, test = part(rows, "train"), part(rows, "test")
        assert (len(train), len(test)) == (180, 60)
        assert rows == train + test
        assert sorted(int(row["image"]) for row in rows) == list(range(240))
        assert all(int(row["label"]) == run.labels[int(row["image"])] for row in rows)
        with h5py.File(tmp_path / "run/features.h5") as file:  # the features are of the fitted images
            assert [name.decode() for name in file["ids"]] == [row["image"] for row in train]
        metrics = json.loads((tmp_path / "run/metrics.json").read_text())
        assert (metrics["protocol"], metrics["images"], metrics["scored_images"]) == ("train-test", 180, 60)
        assert "split" not in run("all")[0]

    def test_scores_are_of_the_held_out_images(self, run: Any, tmp_path: Path) -> None:
        test = part(run("run", *HELD_OUT), "test")
        labels, clusters = (np.array([int(row[name]) for row in test]) for name in ("label", "cluster"))
        metrics = json.loads((tmp_path / "run/metrics.json").read_text())
        found = metrics["scores"]
        assert 0 <= found.pop("knn_accuracy") <= 1
        assert found == scores(labels, clusters)

    @pytest.mark.parametrize("model", ["knn", "energy"])
    def test_what_is_held_out_has_no_part_in_the_clusters(self, run: Any, model: str) -> None:
        flags = ("--coefficients", model)
        rows = run("whole", *HELD_OUT, *flags)
        train = part(rows, "train")
        held_out = [int(row["image"]) for row in part(rows, "test")]
        others = run.pixels.copy()
        others[held_out] = np.random.default_rng(0).integers(0, 256, others[held_out].shape)
        assert part(run("noise", *HELD_OUT, *flags, images=others), "train") == train
        # Nor have their labels, and without them at all the clusters are the same.
        wrong = np.where(np.isin(np.arange(240), held_out), 0, run.labels)
        assert [row["cluster"] for row in part(run("wrong", *HELD_OUT, *flags, labels=wrong), "train")] == [
            row["cluster"] for row in train
        ]
        fitted = [int(row["image"]) for row in train]
        alone = run("alone", *flags, images=run.pixels[fitted], labels=run.labels[fitted])
        assert [row["cluster"] for row in alone] == [row["cluster"] for row in train]
        assert [row["confidence"] for row in alone] == [row["confidence"] for row in train]

    def test_a_held_out_image_changes_no_other(self, run: Any) -> None:
        rows = part(run("whole", *HELD_OUT), "test")
        first, *rest = (int(row["image"]) for row in rows)
        others = run.pixels.copy()
        others[rest] = 255 - others[rest]
        assert part(run("changed", *HELD_OUT, images=others), "test")[0] == rows[0]
        assert rows[0]["image"] == str(first)

    @pytest.mark.parametrize("whiten", [False, True])
    def test_their_votes_are_those_of_their_neighbors(self, run: Any, whiten: bool) -> None:
        flags = ("--coefficients", "knn", "--set", "top_k=7", "--set", f"whiten={str(whiten).lower()}")
        rows = run("run", *HELD_OUT, *flags)
        train, test = part(rows, "train"), part(rows, "test")
        fitted = [int(row["image"]) for row in train]
        unit = run.pixels.reshape(240, -1).astype(np.float64)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        if whiten:  # by the fitted images alone
            unit = Whitening(torch.from_numpy(unit[fitted]))(torch.from_numpy(unit)).numpy()
        clusters = np.array([int(row["cluster"]) for row in train])
        confidence = np.array([float(row["confidence"]) for row in train])
        agreed = 0
        for row in test:
            cosines = unit[fitted] @ unit[int(row["image"])]
            nearest = np.argsort(-cosines)[:7]
            counts = np.bincount(clusters[nearest], minlength=10)
            agreed += int(row["cluster"]) == counts.argmax()
            trusted = confidence[nearest][clusters[nearest] == counts.argmax()]
            assert float(row["confidence"]) == pytest.approx(trusted.sum() / 7, abs=1e-4)
        assert agreed == len(test)

    def test_noise_takes_nobody_in(self, run: Any) -> None:
        noise = ("--clusterer", "DBSCAN", "--set", "clusterer.eps=0.05", "--set", "clusterer.metric=cosine")
        rows = run("run", *HELD_OUT, "--coefficients", "knn", *noise, "--set", "top_k=3")
        found = {name: [row["cluster"] for row in part(rows, name)] for name in ("train", "test")}
        assert 0 < found["train"].count("-1") < 180
        assert 0 < found["test"].count("-1") < 60
        assert set(found["test"]) <= set(found["train"])

    def test_training_sees_the_fitted_images_only(self, run: Any, tmp_path: Path) -> None:
        """Held-out images that are all white would change even the mean that images are normalised by."""
        trains = ("--backbone", "resnet10t", "--epochs", "1", "--batch-size", "60")
        rows = run("first", *HELD_OUT)
        fitted = [int(row["image"]) for row in part(rows, "train")]
        white = np.full_like(run.pixels, 255)
        white[fitted] = run.pixels[fitted]
        run("whole", *HELD_OUT, *trains, images=white)
        run("alone", *trains, images=run.pixels[fitted], labels=run.labels[fitted])
        with (
            h5py.File(tmp_path / "whole/features.h5") as one,
            h5py.File(tmp_path / "alone/features.h5") as two,
        ):
            assert one["features"].shape == (180, 512)
            np.testing.assert_array_equal(one["features"], two["features"])


@pytest.mark.parametrize("share", ["0", "1", "-0.1", "1.5", "half", "nan"])
def test_a_share_that_is_none(ebsc: Any, share: str) -> None:
    done = ebsc("run", *FLAGS, "--set", "protocol=train-test", "--set", f"test_share={share}")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert "'test_share'" in done.err


def test_a_share_too_small_for_the_images(ebsc: Any) -> None:
    done = ebsc("run", *FLAGS, "--limit", "20", *HELD_OUT, "--set", "test_share=0.01")
    assert done.code == 2
    assert done.err == (
        "ebsc: error: test_share is 0.01, which leaves 20 of 20 images to fit on and 0 to test on\n"
    )

"""Backbones of others may draw more than weights: no run gets the features of another seed."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

PLUGIN = """
import torch
from ebsc_core import Backbone, ComponentSpec, Options, hookimpl


class Projection(Backbone):
    def __init__(self, options, info):
        super().__init__()
        self.width = 8
        self.register_buffer("directions", torch.randn(64, 8))

    def forward(self, images):
        return images.flatten(1) @ self.directions


class Fitted(Projection):
    pretrained = True

    def __init__(self, options, info):
        super().__init__(options, info)
        self.directions.zero_()

    def fit(self, images):
        self.directions.copy_(torch.randn(64, 8))


@hookimpl
def ebsc_backbones():
    for name, factory in (("drawn", Projection), ("fitted", Fitted)):
        yield ComponentSpec(name, "A random projection.", factory, Options, trainable=False)
"""


@pytest.fixture
def _plugin(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path_factory.mktemp("site")
    (site / "acme-1.0.dist-info").mkdir()
    (site / "acme-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (site / "acme-1.0.dist-info/entry_points.txt").write_text("[ebsc]\nacme = acme_random\n")
    (site / "acme_random.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "acme_random", raising=False)


def features(run: Path) -> np.ndarray:
    with h5py.File(run / "features.h5") as file:
        return file["features"][:]


@pytest.mark.usefixtures("_plugin")
@pytest.mark.parametrize("backbone", ["drawn", "fitted"])
def test_another_seed_draws_other_features(ebsc, tmp_path: Path, backbone: str) -> None:
    np.savez(tmp_path / "i.npz", images=np.random.default_rng(0).integers(0, 256, (30, 8, 8), np.uint8))
    words = ("run", "--data", "i.npz", "--backbone", backbone, "--epochs", "0", "--coefficients", "knn")
    words = (*words, "--n-clusters", "3", "--cache", "cache", "--no-report")
    runs = [("a", "0"), ("b", "1"), ("c", "0")]
    reused = ["features reused" in ebsc(*words, "--seed", seed, "--out", out).out for out, seed in runs]
    assert reused == [False, False, True]
    first, other, again = (features(tmp_path / out) for out, _ in runs)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(first, again)

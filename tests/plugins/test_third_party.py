"""Somebody else's package: installed by pip, listed, and used in a run."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

FILES = {
    "pyproject.toml": """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "acme-clustering"
version = "4.2.1"

[project.entry-points.ebsc]
acme = "acme.plugin"
""",
    "acme/__init__.py": "",
    "acme/plugin.py": """
from ebsc_core import ComponentSpec, hookimpl


@hookimpl
def ebsc_objectives():
    yield ComponentSpec("my-loss", "Pull views together, push the batch apart.", "acme.loss:MyLoss")


@hookimpl
def ebsc_clusterers():
    yield ComponentSpec("my-cut", "Nearest of the first K rows.", "acme.cut:MyCut")
""",
    "acme/loss.py": '''
"""Alignment and uniformity on the sphere."""

import torch
from pydantic import Field

from ebsc_core import Objective
from ebsc_core.plugins.interfaces import ProjectorOptions


class MyOptions(ProjectorOptions):
    """Options of the loss."""

    sharpness: float = Field(2.0, gt=0)
    """How fast repulsion falls off with distance."""


class MyLoss(Objective):
    """Wang and Isola 2020."""

    Options = MyOptions

    def loss(self, a, b):
        alignment = (a - b).square().sum(1).mean()
        repulsion = torch.pdist(a).square().mul(-self.options.sharpness).exp().mean().log()
        return alignment + repulsion
''',
    "acme/cut.py": '''
"""The simplest clusterer there is."""

from ebsc_core import Clusterer


class MyCut(Clusterer):
    """Each row goes to the most similar of the first K."""

    consumes = "features"

    def __init__(self, options, n_clusters, seed):
        self.n_clusters = n_clusters

    def fit_predict(self, data):
        return (data @ data[: self.n_clusters].T).argmax(1)
''',
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder the package is installed into by pip, without a network."""
    source, target = tmp_path_factory.mktemp("acme"), tmp_path_factory.mktemp("site")
    for name, text in FILES.items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(text.lstrip())
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    pip = [sys.executable, "-m", "pip", "install", *offline, "--target", str(target), str(source)]
    built = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return target


def ebsc(site: Path, *arguments: str) -> str:
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "COLUMNS": "250"}
    command = [sys.executable, "-m", "ebsc_cli", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=site, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_objective_takes_one_short_module() -> None:
    assert len(FILES["acme/loss.py"].splitlines()) <= 40


def test_it_is_listed_with_its_distribution_and_version(site: Path) -> None:
    lines = ebsc(site, "plugins", "list").splitlines()
    for name in ("my-loss", "my-cut"):
        assert any(name in line and "acme-clustering 4.2.1" in line for line in lines)


def test_its_options_are_shown(site: Path) -> None:
    out = ebsc(site, "plugins", "show", "my-loss")
    assert "objective.sharpness" in out
    assert "How fast repulsion falls off with distance." in out


def test_a_run_uses_it(site: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    out = tmp_path / "run"
    parts = ["--objective", "my-loss", "--clusterer", "my-cut", "--backbone", "resnet10t"]
    small = ["--epochs", "1", "--batch-size", "32", "--n-clusters", "3", "--precision", "fp32"]
    options = ["--set", "objective.sharpness=3.0", "--set", "refine.steps=5", "--device", "cpu"]
    ebsc(site, "run", "--data", str(tmp_path / "images.npz"), *parts, *small, *options, "--out", str(out))
    record = tomllib.loads((out / "run.toml").read_text())
    assert record["objective"]["sharpness"] == 3.0
    assert record["provenance"]["parts"]["objective"] == "acme-clustering 4.2.1"
    assert record["provenance"]["parts"]["clusterer"] == "acme-clustering 4.2.1"
    with (out / "assignments.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 64


def test_features_of_its_former_code_are_not_reused(site: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    small = ["--epochs", "1", "--batch-size", "32", "--n-clusters", "3", "--precision", "fp32"]
    command = ["run", "--data", str(tmp_path / "images.npz"), "--objective", "my-loss", *small]
    command += ["--backbone", "resnet10t", "--device", "cpu", "--cache", str(tmp_path / "cache"), "--out"]
    loss = site / "acme/loss.py"
    ebsc(site, *command, str(tmp_path / "first"))
    ebsc(site, *command, str(tmp_path / "second"))
    assert len(list((tmp_path / "cache").rglob("objective*"))) == 1
    source = loss.read_text()
    loss.write_text(source.replace("return alignment + repulsion", "return alignment + 2 * repulsion"))
    try:
        ebsc(site, *command, str(tmp_path / "third"))
    finally:
        loss.write_text(source)
    assert len(list((tmp_path / "cache").rglob("objective*"))) == 2

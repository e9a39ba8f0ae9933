"""A run that is repeated, or goes on, when the distribution of a part has changed since."""

from __future__ import annotations

import json
import signal
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ebsc_core import __version__
from ebsc_core.training.step import JointStep

PIXELS = ("run", "--limit", "60", "--epochs", "0", "--backbone", "identity", "--set", "refine.steps=2")
TRAINED = (
    *("run", "--limit", "60", "--epochs", "3", "--batch-size", "30", "--backbone", "resnet10t"),
    *("--set", "refine.steps=2", "--objective", "acme-loss", "--cache", "cache"),
)
PLUGIN = """
from ebsc_core import ComponentSpec, hookimpl
@hookimpl
def ebsc_objectives():
    yield ComponentSpec("acme-loss", "A loss.", "ebsc_plugins.objectives.simclr:SimCLR")
@hookimpl
def ebsc_clusterers():
    yield ComponentSpec("acme-cut", "A cut.", "ebsc_plugins.clusterers.spectral:SpectralClustering")
"""
Ebsc = Callable[..., Any]


class Acme:
    """A distribution on ``sys.path`` that can be updated and removed."""

    def __init__(self, site: Path) -> None:
        self.site = site
        (site / "acme_plugin.py").write_text(PLUGIN)

    def update(self, version: str) -> None:
        self.remove()
        info = self.site / f"acme-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme\nVersion: {version}\n")
        (info / "entry_points.txt").write_text("[ebsc]\nacme = acme_plugin\n")

    def remove(self) -> None:
        for info in self.site.glob("*.dist-info"):
            for file in info.iterdir():
                file.unlink()
            info.rmdir()


@pytest.fixture
def acme(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Acme:
    site = tmp_path_factory.mktemp("site")
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "acme_plugin", raising=False)
    made = Acme(site)
    made.update("4.2")
    return made


@pytest.fixture
def recorded(ebsc: Ebsc, acme: Acme) -> Acme:
    """With a run that it took part in, in the folder ``run``."""
    done = ebsc(*PIXELS, "--objective", "acme-loss", "--clusterer", "acme-cut", "--out", "run")
    assert done.code == 0, done.err
    return acme


def repeated(ebsc: Ebsc, *arguments: str, out: str = "again") -> Any:
    return ebsc("run", "--config", "run/run.toml", *arguments, "--out", out)


def test_each_part_is_recorded_with_its_distribution(recorded: Acme, tmp_path: Path) -> None:
    parts = tomllib.loads((tmp_path / "run/run.toml").read_text())["provenance"]["parts"]
    ours = dict.fromkeys(("data", "backbone", "coefficients"), f"ebsc {__version__}")
    assert parts == ours | dict.fromkeys(("objective", "clusterer"), "acme 4.2")


def test_what_has_not_changed_is_not_worth_a_word(ebsc: Ebsc, recorded: Acme) -> None:
    assert repeated(ebsc).err == ""


def test_another_version_is_said_first_and_kept(ebsc: Ebsc, recorded: Acme, tmp_path: Path) -> None:
    recorded.update("5.0")
    done = repeated(ebsc)
    assert done.code == 0
    said = "run/run.toml was made with acme 4.2 (objective, clusterer), now it is acme 5.0: "
    assert done.err == f"warning: {said}results may differ\n"
    assert json.loads((tmp_path / "again/metrics.json").read_text())["warnings"] == [
        said + "results may differ"
    ]


def test_a_part_that_the_command_line_changes_is_not_compared(ebsc: Ebsc, recorded: Acme) -> None:
    recorded.update("5.0")
    done = repeated(ebsc, "--clusterer", "spectral")
    assert "with acme 4.2 (objective), now" in done.err
    recorded.remove()
    done = repeated(ebsc, "--clusterer", "spectral", "--objective", "simclr", out="third")
    assert (done.code, done.err) == (0, "")


def test_a_missing_distribution_is_named(ebsc: Ebsc, recorded: Acme, tmp_path: Path) -> None:
    recorded.remove()
    done = repeated(ebsc)
    assert done.code == 2
    assert done.err.startswith("ebsc: error: unknown objective 'acme-loss': ")
    assert "made with acme 4.2, which is not installed: pip install acme==4.2\n" in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "again").exists()


def test_a_version_without_the_part_is_named(ebsc: Ebsc, recorded: Acme) -> None:
    recorded.update("5.0")
    (recorded.site / "acme_plugin.py").write_text(PLUGIN.replace("acme-cut", "acme-slice"))
    sys.modules.pop("acme_plugin")
    done = repeated(ebsc)
    assert done.code == 2
    assert "did you mean acme-slice?; run/run.toml was made with acme 4.2, now it is acme 5.0" in done.err


@pytest.mark.parametrize(
    "record", ["provenance = 3", "[provenance]\nparts = 3", "[provenance.parts]\ndata = 3"]
)
def test_a_record_of_another_form_says_nothing(ebsc: Ebsc, tmp_path: Path, record: str) -> None:
    (tmp_path / "mine.toml").write_text(record)
    done = ebsc(*PIXELS, "--config", "mine.toml")
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("version", ["4.2", "5.0"])
def test_kept_training_that_goes_on_with_another_version_is_told(
    ebsc: Ebsc, acme: Acme, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str
) -> None:
    real, steps = JointStep.__call__, []

    def stopped_in_the_third(self: JointStep, *arguments: Any, **named: Any) -> Any:
        steps.append(1)
        if len(steps) == 3:
            signal.raise_signal(signal.SIGINT)
        return real(self, *arguments, **named)

    monkeypatch.setattr(JointStep, "__call__", stopped_in_the_third)
    assert "training is kept and goes on from epoch 2 of 3" in ebsc(*TRAINED, "--out", "run").err
    acme.update(version)
    done = ebsc("resume", "run")
    assert done.code == 0, done.err
    assert ("warning: run/unfinished.toml was made with acme 4.2" in done.err) == (version == "5.0")
    assert "training goes on from epoch 2 of 3" in done.out
    ours = f"ebsc {__version__}"
    warning = (
        f"trained with acme 4.2, {ours}, from epoch 2 on with acme 5.0, {ours}: "
        "neither alone gives these features"
    )
    warnings = json.loads((tmp_path / "run/metrics.json").read_text())["warnings"]
    assert (warning in warnings) == (version == "5.0")
    # It stays with the features.
    assert (warning in ebsc(*TRAINED, "--out", "again").err) == (version == "5.0")

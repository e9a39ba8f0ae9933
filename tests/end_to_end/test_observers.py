"""What observers are told of real runs, and what their faults cost."""

from __future__ import annotations

import json
import signal
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TINY = ("run", "--limit", "60", "--epochs", "2", "--backbone", "resnet10t", "--set", "refine.steps=2")
PIXELS = ("run", "--limit", "60", "--epochs", "0", "--backbone", "identity", "--set", "refine.steps=2")

PLUGIN = '''
from copy import deepcopy

from ebsc_core import ComponentSpec, Options, hookimpl

HEARD = []


class Witness:
    class Options(Options):
        fails_in: str = ""
        """Hook that raises."""

    def __init__(self, options):
        self.options = options

    def hear(self, hook, event):
        HEARD.append((hook, deepcopy(event)))
        if hook == self.options.fails_in:
            raise RuntimeError("no\\nluck")

    @hookimpl
    def ebsc_run_started(self, event):
        self.hear("run_started", event)
        event.config.clear()

    @hookimpl
    def ebsc_epoch_finished(self, event):
        self.hear("epoch_finished", event)

    @hookimpl
    def ebsc_stage_finished(self, event):
        self.hear("stage_finished", event)

    @hookimpl
    def ebsc_run_finished(self, event):
        self.hear("run_finished", event)

    @hookimpl
    def ebsc_run_failed(self, event):
        self.hear("run_failed", event)


@hookimpl
def ebsc_observers():
    yield ComponentSpec("witness", "Hears all.", Witness)
    yield ComponentSpec("deaf", "Has no hooks.", dict, Options)
'''

Heard = list[tuple[str, Any]]
Ebsc = Callable[..., Any]


@pytest.fixture
def heard(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Heard:
    """Installs a package with an observer; what that has heard."""
    site = tmp_path_factory.mktemp("site")
    info = site / "acme-4.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 4.2\n")
    (info / "entry_points.txt").write_text("[ebsc]\nacme = acme_witness\n")
    (site / "acme_witness.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "acme_witness", raising=False)
    import acme_witness

    return acme_witness.HEARD


def hooks(heard: Heard) -> list[str]:
    return [hook for hook, _ in heard]


def test_a_run_is_told_from_its_start_to_its_end(ebsc: Ebsc, heard: Heard, tmp_path: Path) -> None:
    done = ebsc(*TINY, "--observer", "witness", "--out", "run")
    assert done.code == 0, done.err
    assert done.err == ""
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    stages = list(metrics["seconds"])
    before, after = stages[: stages.index("training")], stages[stages.index("training") :]
    assert hooks(heard) == [
        "run_started",
        *["stage_finished"] * len(before),
        *["epoch_finished"] * 2,
        *["stage_finished"] * len(after),
        "run_finished",
    ]
    assert {event.directory for _, event in heard} == {tmp_path / "run"}
    told = [event for hook, event in heard if hook == "stage_finished"]
    assert {event.stage: round(event.seconds, 2) for event in told} == metrics["seconds"]
    assert heard[-1][1].metrics == metrics
    epochs = [event for hook, event in heard if hook == "epoch_finished"]
    assert [(event.epoch, event.epochs, event.phase) for event in epochs] == [
        (number, 2, epoch["stage"]) for number, epoch in enumerate(metrics["training"], 1)
    ]
    for event, epoch in zip(epochs, metrics["training"], strict=True):
        numbers = {name: value for name, value in epoch.items() if name != "stage" and value is not None}
        assert event.figures == numbers


def test_what_was_asked_for_comes_first_and_run_toml_names_who_heard(
    ebsc: Ebsc, heard: Heard, tmp_path: Path
) -> None:
    named = ("--observer", "witness", "--set", "observers.witness.fails_in=nothing")
    done = ebsc(*PIXELS, *named, "--out", "run")
    assert done.code == 0, done.err
    started = heard[0][1]
    assert started.config["backbone"] == {"name": "identity"}
    assert started.config["refine"]["steps"] == 2
    assert started.parts["objective"].startswith("ebsc ")
    assert started.parts["observers.witness"] == "acme 4.2"
    record = tomllib.loads((tmp_path / "run/run.toml").read_text())
    # The observer has emptied its own copy of the configuration.
    assert record["observers"] == {"witness": {"fails_in": "nothing"}}
    assert record["provenance"]["parts"] == started.parts
    heard.clear()
    again = ebsc("run", "--config", "run/run.toml", "--out", "again")
    assert again.code == 0, again.err
    assert again.err == ""
    assert hooks(heard)[-1] == "run_finished"
    assert "epoch_finished" not in hooks(heard)


def test_a_run_without_observers_says_nothing_of_them(ebsc: Ebsc, tmp_path: Path) -> None:
    done = ebsc(*PIXELS, "--out", "run")
    assert "observers" not in done.out
    assert "observers" not in tomllib.loads((tmp_path / "run/run.toml").read_text())


@pytest.mark.parametrize("hook", ["run_started", "stage_finished", "run_finished"])
def test_one_that_raises_is_named_once_and_dropped(
    ebsc: Ebsc, heard: Heard, tmp_path: Path, hook: str
) -> None:
    fails = ("--set", f"observers.witness.fails_in={hook}")
    done = ebsc(*PIXELS, "--observer", "witness", *fails, "--out", "run")
    assert done.code == 0
    assert done.err == (
        f"warning: observer 'witness' of acme 4.2 failed in ebsc_{hook} (RuntimeError: no luck); "
        "it gets no more events of this run\n"
    )
    assert hooks(heard).count(hook) == 1
    assert hooks(heard)[-1] == hook
    assert (tmp_path / "run/assignments.csv").exists()


def test_features_that_are_reused_do_not_repeat_its_failure(ebsc: Ebsc, heard: Heard) -> None:
    fails = ("--observer", "witness", "--set", "observers.witness.fails_in=epoch_finished")
    first = ebsc(*TINY, *fails, "--cache", "cache", "--out", "run")
    assert "failed in ebsc_epoch_finished" in first.err
    again = ebsc(*TINY, "--cache", "cache", "--out", "again")
    assert "features reused" in again.out
    assert again.err == ""


def test_strictly_it_ends_the_run(
    ebsc: Ebsc, heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EBSC_STRICT_PLUGINS", "1")
    fails = ("--set", "observers.witness.fails_in=stage_finished")
    done = ebsc(*PIXELS, "--observer", "witness", *fails, "--out", "run")
    assert done.code == 2
    assert "observer 'witness' of acme 4.2 failed in ebsc_stage_finished (RuntimeError: no luck)" in done.err
    assert not (tmp_path / "run").exists()


def test_a_run_that_fails_is_told(ebsc: Ebsc, heard: Heard, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = ebsc(*PIXELS[:1], "--data", "empty", "--n-clusters", "2", "--observer", "witness")
    assert done.code == 2
    assert hooks(heard) == ["run_started", "run_failed"]
    assert heard[-1][1].error.startswith("DataError: ")
    assert heard[-1][1].error.removeprefix("DataError: ") in done.err


def test_a_run_that_is_stopped_is_told(
    ebsc: Ebsc, heard: Heard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ebsc_core.training.step import JointStep

    real = JointStep.__call__

    def interrupted(self: JointStep, *arguments: Any, **named: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return real(self, *arguments, **named)

    monkeypatch.setattr(JointStep, "__call__", interrupted)
    done = ebsc(*TINY, "--observer", "witness", "--cache", "cache")
    assert done.code == 130
    assert hooks(heard)[-1] == "run_failed"
    assert heard[-1][1].error.startswith("Interrupted: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--observer", "witnes"), "unknown observer 'witnes': did you mean witness?"),
        (("--observer", "deaf"), "observer 'deaf' of acme 4.2 cannot be used: it implements no hook"),
        (
            ("--set", "observers.witness.fail=1"),
            "'observers.witness.fail': did you mean 'observers.witness.fails_in'?",
        ),
        (("--set", "observers.witness=1"), "'observers.witness': input should be a valid table, got 1"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_read(
    ebsc: Ebsc, heard: Heard, arguments: tuple[str, ...], said: str
) -> None:
    done = ebsc(*PIXELS, *arguments)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1
    assert heard == []


class TestTensorBoard:
    def test_its_curves_are_read_back(self, ebsc: Ebsc, tmp_path: Path) -> None:
        pytest.importorskip("tensorboard", reason="the extra ebsc[tensorboard] is not installed")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        done = ebsc(*TINY, "--observer", "tensorboard", "--out", "runs/first")
        assert done.code == 0, done.err
        metrics = json.loads((tmp_path / "runs/first/metrics.json").read_text())
        events = EventAccumulator(str(tmp_path / "runs/tensorboard/first")).Reload()
        loss = events.Scalars("training/loss")
        assert [point.step for point in loss] == [1, 2]
        assert [point.value for point in loss] == pytest.approx([e["loss"] for e in metrics["training"]])
        (score,) = events.Scalars("scores/acc")
        assert score.value == pytest.approx(metrics["scores"]["acc"])
        assert events.Scalars("seconds/training")

    def test_without_the_extra_one_line_names_it(
        self, ebsc: Ebsc, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setitem(sys.modules, "tensorboard", None)
        for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
            monkeypatch.delitem(sys.modules, name)
        done = ebsc(*PIXELS, "--observer", "tensorboard", "--out", "run")
        assert done.code == 2
        assert done.err.count("\n") == 1
        assert "pip install 'ebsc[tensorboard]'" in done.err
        assert list(tmp_path.iterdir()) == []

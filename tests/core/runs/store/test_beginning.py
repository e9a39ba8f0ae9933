"""The first moments of a run directory: whatever ends the process there, the same command works again."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ebsc_core.runs.store import directory
from ebsc_core.runs.store.directory import RunDirectory, check_free
from ebsc_core.runs.store.unfinished import is_unfinished
from ebsc_core.utils.errors import ComponentError, RunDirectoryError

# All that a run does before its record is there, as calls that can be intercepted: where, and which call.
CALLS = [
    (Path, "mkdir", 1),
    (Path, "mkdir", 2),
    (Path, "mkdir", 3),
    (directory, "locked", 1),
    (directory, "write_unfinished", 1),
    (Path, "replace", 1),
]
Step = tuple[Any, str, int]


def before(step: Step, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something before a call."""
    owner, name, number = step
    real, calls = getattr(owner, name), []

    def intercepted(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            act()
        return real(*arguments, **named)

    monkeypatch.setattr(owner, name, intercepted)


def after(step: Step, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something after a call."""
    owner, name, number = step
    real, calls = getattr(owner, name), []

    def intercepted(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        result = real(*arguments, **named)
        if len(calls) == number:
            act()
        return result

    monkeypatch.setattr(owner, name, intercepted)


def fill(out: Path, text: str = "1") -> None:
    with RunDirectory(out, {"seed": 3}) as run:
        run.write_metrics({"x": text})


def begin(out: Path) -> None:
    with RunDirectory(out, {"seed": 3}):
        pass


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("when", [before, after])
@pytest.mark.parametrize("step", CALLS, ids=lambda step: f"{step[1]}-{step[2]}")
def test_a_run_that_is_killed_can_be_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: Step, when: Callable[..., None]
) -> None:
    out, child = tmp_path / "run", os.fork()
    if child == 0:
        when(step, lambda: os._exit(9), monkeypatch)
        begin(out)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    if step == (Path, "replace", 1) and when is after:  # the record is there: the run can be resumed
        assert is_unfinished(out)
        with pytest.raises(RunDirectoryError, match="to go on: ebsc resume"):
            check_free(out)
        with RunDirectory(out, resuming=True):
            pass
        return
    fill(out)
    assert sorted(path.name for path in out.iterdir()) == ["checkpoints", "manifest", "metrics.json"]


@pytest.mark.parametrize("step", CALLS, ids=lambda step: f"{step[1]}-{step[2]}")
@pytest.mark.parametrize("there", [False, True])
def test_ctrl_c_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: Step, there: bool
) -> None:
    if there:
        (tmp_path / "run").mkdir()
    with monkeypatch.context() as patched:
        before(step, interrupt, patched)
        with pytest.raises(KeyboardInterrupt):
            begin(tmp_path / "run")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == (["run"] if there else [])


def test_of_two_that_start_at_once_one_runs_and_the_other_hears_of_it(tmp_path: Path) -> None:
    said: list[str] = []

    def start(number: int) -> None:
        try:
            fill(tmp_path / "run", str(number))
        except RunDirectoryError as error:
            said.append(str(error))

    threads = [threading.Thread(target=start, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 7
    # The last one, if the folder of the first goes while another is about to make it.
    states = ("already holds files", "another process", "is unfinished", "File exists")
    assert all(any(state in text for state in states) for text in said), said
    assert (tmp_path / "run/metrics.json").is_file()


def test_a_folder_with_anything_else_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "run/.unfinished").mkdir(parents=True)
    (tmp_path / "run/mine").touch()
    with pytest.raises(RunDirectoryError, match="already holds files"):
        fill(tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".unfinished", "mine"]


QUICK = ("--backbone", "identity", "--set", "refine.steps=1", "--coefficients", "knn", "-q")


class TestWithoutAName:
    def test_runs_of_one_second_get_a_directory_each(
        self, ebsc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Stopped:
            @classmethod
            def now(cls) -> Any:
                from datetime import datetime

                return datetime(2026, 1, 2, 3, 4, 5)

        monkeypatch.setattr(directory, "datetime", Stopped)
        for _ in range(2):
            assert ebsc("run", "--limit", "40", *QUICK).code == 0
        name = "20260102-030405-digits-identity-knn-spectral-s0"  # no objective: there is nothing to train
        assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [name, f"{name}-2"]

    def test_what_fails_leaves_none(self, ebsc, tmp_path: Path) -> None:
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos/broken.png").write_bytes(b"no picture")
        assert ebsc("run", "--data", "photos", "--n-clusters", "2", *QUICK).code == 2
        assert list((tmp_path / "runs").iterdir()) == []

    def test_neither_does_an_observer_that_cannot_be_built(
        self, ebsc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*arguments: Any) -> None:
            raise ComponentError("no observer")

        monkeypatch.setattr("ebsc_core.plugins.observers._managed", fail)
        done = ebsc("run", *QUICK, "--observer", "tensorboard")
        assert (done.code, done.err) == (2, "ebsc: error: no observer\n")
        assert list((tmp_path / "runs").iterdir()) == []

    def test_long_names_of_inputs_and_outputs_are_taken(self, ebsc, tmp_path: Path) -> None:
        rows = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
        name = "n" * 230 + ".npy"
        np.save(tmp_path / name, rows)
        cluster = ("cluster", name, "--n-clusters", "2", "--coefficients", "knn", "-q")
        assert ebsc(*cluster).code == 0
        (made,) = (tmp_path / "runs").iterdir()
        assert "-nnn" in made.name
        assert made.name.endswith("-knn-spectral-s0")
        assert ebsc(*cluster, "--out", "o" * 250).code == 0
        for out in ("p" * 246 + ".csv", "é" * 123 + ".csv"):
            assert ebsc("predict", "o" * 250, name, "-o", out).code == 0
            assert len((tmp_path / out).read_text().splitlines()) == 13

    def test_an_objective_that_trains_is_in_the_name(self, ebsc, tmp_path: Path) -> None:
        (tmp_path / "photos").mkdir()
        for number in range(4):
            Image.new("L", (8, 8), 60 * number).save(tmp_path / f"photos/{number}.png")
        trains = ("--backbone", "resnet10t", "--epochs", "1", "--n-clusters", "2", *QUICK[2:])
        assert ebsc("run", "--data", "photos", *trains).code == 0
        assert ebsc("run", "--data", "photos", *trains, "--epochs", "0").code == 0
        names = sorted(path.name[16:] for path in (tmp_path / "runs").iterdir())
        assert names == ["photos-resnet10t-knn-spectral-s0", "photos-resnet10t-simclr-knn-spectral-s0"]

"""A flipped bit in whatever a command reads: it is refused in one line that names the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ebsc_core.estimators.finished_run import FinishedRun, Folder
from ebsc_core.runs.store.listing import list_runs
from ebsc_core.training.step import JointStep
from ebsc_core.utils.errors import EbscError
from ebsc_core.utils.manifest import MANIFEST, write_manifest

TRAINED = (
    *("run", "--data", "photos", "--n-clusters", "2", "--backbone", "resnet10t", "--epochs", "1"),
    *(
        "--batch-size",
        "12",
        "--set",
        "joint.form=reconstruction",
        "--set",
        "refine.steps=2",
        "--precision",
        "fp32",
        "--cache",
        "cache",
        "-q",
    ),
)
RUN, LINES, FIGURES, ROWS = "run.toml", "assignments.csv", "metrics.json", "features.h5"
WEIGHTS = [f"checkpoints/{name}.safetensors" for name in ("backbone", "objective", "coefficients")]
# What each command reads of a run, and so what it guards.
READ = {
    ("report", "run"): {RUN, LINES, FIGURES, ROWS, "affinity.npz"},
    ("predict", "run", "photos", "-o", "new.csv", "-q"): {RUN, LINES, ROWS, *WEIGHTS},
    ("compare", "run", "run"): {RUN, LINES, FIGURES},
    ("features", "show", "run"): {ROWS},
    ("features", "show", "run/features.h5"): {ROWS},
}


@pytest.fixture
def run(ebsc, tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(24):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"photos/{number}.png")
    assert ebsc(*TRAINED, "--out", "run").code == 0
    return tmp_path / "run"


def flip(file: Path, generator: np.random.Generator) -> None:
    data = bytearray(file.read_bytes())
    data[generator.integers(len(data))] ^= 1 << generator.integers(8)
    file.write_bytes(data)


def test_every_file_that_is_read_is_guarded(ebsc, run: Path) -> None:
    names = {str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()}
    # The model of the joint phase is kept for whoever looks at it; no command reads it.
    assert names - {MANIFEST, "checkpoints/joint.safetensors"} == set().union(*READ.values())
    generator = np.random.default_rng(0)
    for name in sorted(names - {MANIFEST}):
        whole = (run / name).read_bytes()
        flip(run / name, generator)
        for command, reads in READ.items():
            done = ebsc(*command)
            if name in reads:
                assert (done.code, done.err.count("\n")) == (2, 1), done.err
                assert done.err.startswith(f"ebsc: error: run/{name} is not the file that was written")
            else:
                assert done.code == 0, done.err
        done = ebsc("doctor", "run", "--json")
        assert done.code == 1
        failed = [one["text"] for one in json.loads(done.out)["findings"] if one["status"] == "failed"]
        assert len(failed) == 1
        assert failed[0].startswith(f"run/{name} is not")
        state = list_runs(run)[0].state
        assert state == ("damaged" if name in (RUN, FIGURES) else "finished")
        (run / name).write_bytes(whole)
    assert ebsc("doctor", "run", "cache/" + entry(run).name).code == 0


def entry(run: Path) -> Path:
    (found,) = (path for path in (run.parent / "cache").iterdir() if path.is_dir())
    return found


def test_a_file_that_is_gone_is_missed(ebsc, run: Path) -> None:
    for name, command in (("affinity.npz", ("report", "run")), (WEIGHTS[1], [*READ][1])):
        content = (run / name).read_bytes()
        (run / name).unlink()
        assert ebsc(*command).err.startswith(f"ebsc: error: run/{name} is missing")
        assert ebsc("doctor", "run").code == 1
        (run / name).write_bytes(content)


def test_without_its_manifest_a_run_is_read_and_that_is_said(ebsc, run: Path) -> None:
    shutil.rmtree(run.parent / "cache")
    (run / MANIFEST).unlink()
    for command in (*([*READ][:3]), ("doctor", "run")):
        done = ebsc(*command)
        assert done.code == 0
        assert "run has no manifest" in done.out + done.err


def test_estimators_read_no_other_file(run: Path) -> None:
    flip(run / ROWS, np.random.default_rng(0))
    with pytest.raises(EbscError, match=r"features\.h5 is not the file that was written"):
        _ = FinishedRun(Folder(str(run)), "cpu").saved.rows
    flip(run / RUN, np.random.default_rng(0))
    with pytest.raises(EbscError, match=r"run\.toml is not the file that was written"):
        FinishedRun(Folder(str(run)), "cpu")


def test_a_damaged_cache_is_computed_anew(ebsc, run: Path) -> None:
    again = [word for word in TRAINED if word != "-q"]
    assert "features reused" in ebsc(*again, "--out", "reused").out
    for number, name in enumerate((ROWS, "training.json", "backbone.safetensors", MANIFEST)):
        flip(entry(run) / name, np.random.default_rng(number))
        done = ebsc(*again, "--out", f"anew-{number}")
        assert done.code == 0
        assert f"cached features cannot be used: cache/{entry(run).name}/" in done.err
        assert "computing them anew" in done.err
        assert (run.parent / f"anew-{number}" / LINES).read_bytes() == (run / LINES).read_bytes()
    (entry(run) / MANIFEST).unlink()
    done = ebsc(*again, "--out", "old")
    assert "features reused" in done.out
    assert "no manifest" in done.err
    write_manifest(entry(run))
    assert ebsc(*again, "--out", "new").err == ""


@pytest.fixture
def stopped(ebsc, run: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Stop a run in its second step, and return the command that goes on."""

    def stop() -> list[str]:
        real, taken = JointStep.__call__, []

        def call(*arguments, **named):
            taken.append(1)
            if len(taken) == 2:
                raise RuntimeError("the machine fails")
            return real(*arguments, **named)

        shutil.rmtree(run.parent / "cache")
        with monkeypatch.context() as patched:
            patched.setattr(JointStep, "__call__", call)
            with pytest.raises(RuntimeError):
                ebsc(*TRAINED, "--out", "half")
        return ["resume", "half"]

    return stop


def test_a_damaged_checkpoint_is_refused_with_the_way_out(ebsc, run: Path, stopped) -> None:
    command = stopped()
    (kept,) = (run.parent / "cache").glob("*.training.safetensors")
    whole, generator = kept.read_bytes(), np.random.default_rng(0)
    for _ in range(10):
        flip(kept, generator)
        done = ebsc(*command)
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        assert str(kept) in done.err
        assert "restore it from a copy, or delete it to train from the start" in done.err
        kept.write_bytes(whole)
    assert ebsc(*command).code == 0
    assert (run.parent / "half" / LINES).read_bytes() == (run / LINES).read_bytes()


def test_a_run_that_was_resumed_otherwise_is_not_said_to_be_repeatable(
    ebsc, run: Path, stopped, with_reports: None
) -> None:
    assert ebsc("report", "run").code == 0
    assert "it finds the same clusters" in (run / "report.html").read_text()
    command = stopped()
    assert ebsc(*command, "--batch-size", "8").code == 0
    page = (run.parent / "half/report.html").read_text()
    assert "it finds the same clusters" not in page
    assert "so it may find other clusters" in page

"""What the record of a run says about what it has read: it is found from anywhere, and nothing else is."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ebsc_core.plugins.registry import Registry
from ebsc_core.runs.store.directory import RunDirectory
from ebsc_core.runs.store.images import read_again
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.runs.store.unfinished import UNFINISHED

QUICK = ("--n-clusters", "2", "--coefficients", "knn", "--out", "run")
IDENTITY = ("--backbone", "identity", "--epochs", "0")


def make_photos(folder: Path) -> None:
    folder.mkdir()
    for i in range(20):
        Image.new("L", (8, 8), 10 * i).save(folder / f"{i:02}.png")


def test_a_folder_with_the_name_of_a_data_set_does_not_take_its_place(ebsc, tmp_path: Path) -> None:
    make_photos(tmp_path / "digits")
    done = ebsc("run", "--data", "digits", "--limit", "30", *IDENTITY, *QUICK)
    assert done.code == 0, done.err
    run = SavedRun(tmp_path / "run")
    assert run.config.data.name == "digits"
    assert len(read_again(run, Registry(), lambda message: None)) == 30
    again = ebsc("run", "--config", "run/run.toml", "--out", "again")
    assert again.code == 0, again.err
    assert SavedRun(tmp_path / "again").assignments.ids == run.assignments.ids


def test_neither_does_it_as_the_images_of_features(ebsc, tmp_path: Path) -> None:
    make_photos(tmp_path / "digits")
    np.save(tmp_path / "f.npy", np.random.default_rng(0).normal(size=(1797, 4)).astype(np.float32))
    done = ebsc("cluster", "f.npy", "--images", "digits", *QUICK)
    assert done.code == 0, done.err
    run = SavedRun(tmp_path / "run")
    assert run.config.features.images == "digits"
    assert run.config.features.path == str(tmp_path / "f.npy")
    assert len(read_again(run, Registry(), lambda message: None)) == 1797


def test_paths_are_absolute(ebsc, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos")
    assert ebsc("run", "--data", "photos", *IDENTITY, *QUICK).code == 0
    assert SavedRun(tmp_path / "run").config.data.name == str(tmp_path / "photos")
    np.save(tmp_path / "f.npy", np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32))
    assert ebsc("cluster", "f.npy", "--images", "photos", *QUICK, "--out", "rows").code == 0
    assert SavedRun(tmp_path / "rows").config.features.images == str(tmp_path / "photos")


@pytest.mark.parametrize("root", ["there", "~/there"])
def test_so_is_the_folder_of_named_data_sets(
    ebsc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    named = ("--data", "digits", "--limit", "30", "--data-root", root)
    assert ebsc("run", *named, *IDENTITY, *QUICK).code == 0
    assert SavedRun(tmp_path / "run").config.data.root == str(tmp_path / "there")


def test_an_unfinished_run_names_the_same_paths(
    ebsc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_photos(tmp_path / "photos")

    class Stopped(Exception): ...

    def stop(directory: RunDirectory) -> None:
        shutil.copy(directory.target / UNFINISHED, tmp_path / "kept.toml")
        raise Stopped

    monkeypatch.setattr(RunDirectory, "_finish", stop)
    with pytest.raises(Stopped):
        ebsc("run", "--data", "photos", "--data-root", "there", *IDENTITY, *QUICK)
    kept = tomllib.loads((tmp_path / "kept.toml").read_text())["data"]
    assert (kept["name"], kept["root"]) == (str(tmp_path / "photos"), str(tmp_path / "there"))

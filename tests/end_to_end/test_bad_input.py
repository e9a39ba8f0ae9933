"""A user's mistake: one clear line, a non-zero exit, nothing left behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A folder of bad things."""
    folder = tmp_path / "in"
    folder.mkdir()
    images = np.zeros((20, 8, 8), np.uint8)
    npz(folder / "keys.npz", pictures=images)
    npz(folder / "shape.npz", images=images[0])
    npz(folder / "labels.npz", images=images, labels=np.arange(3))
    npz(folder / "pickled.npz", images=np.array([{"a": 1}] * 20, dtype=object))
    npz(folder / "good.npz", images=images)
    (folder / "garbage.npz").write_bytes(b"no archive")
    (folder / "empty").mkdir()
    (folder / "few").mkdir()
    (folder / "bad").mkdir()
    for i in range(3):
        Image.fromarray(images[i]).save(folder / "few" / f"{i}.png")
        noise = np.random.default_rng(i).integers(256, size=(8, 8), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "bad" / f"{i}.png")
    (folder / "bad" / "broken.png").write_bytes(b"not a picture")
    (folder / "file").write_text("in the way")
    (folder / "bad.toml").write_text("seed = = 3")
    (folder / "unknown.toml").write_text("[train]\nepoch = 3")
    return folder


CASES = {
    "unknown objective": (["--objective", "simcrl"], ["simcrl", "simclr"]),
    "unknown backbone": (["--backbone", "resnet81"], ["resnet81", "did you mean"]),
    "unknown clusterer": (["--clusterer", "spectrl"], ["spectrl", "spectral"]),
    "unknown coefficients": (["--coefficients", "enrgy"], ["enrgy", "energy"]),
    "unknown data": (["--data", "digit"], ["digit", "digits"]),
    "unknown option": (["--set", "objective.temprature=1"], ["objective.temprature", "temperature"]),
    "an option of others": (
        ["--backbone", "pca", "--pretrained"],
        ["backbone 'pca' has no --pretrained; leave it out, or choose a backbone that has it"],
    ),
    "unknown section": (["--set", "objectiv.temperature=1"], ["objectiv"]),
    "unknown view": (["--set", "views.flp=1"], ["views.flp", "flip"]),
    "ill-typed option": (["--set", "objective.temperature=warm"], ["objective.temperature", "number"]),
    "out of range": (["--set", "train.lr=-1"], ["train.lr", "greater than 0"]),
    "two values": (["--seed", "1", "--set", "seed=2"], ["--seed 1 and --set seed=2 contradict each other"]),
    "no value": (["--set", "train.lr"], ["train.lr", "section.option=value"]),
    "one cluster": (["--n-clusters", "1"], ["n_clusters", "2"]),
    "no clusters": (["--n-clusters", "0"], ["n_clusters", "2"]),
    "less than no clusters": (["--n-clusters=-1"], ["n_clusters", "2", "-1"]),
    "clusters in words": (["--n-clusters", "foo"], ["n_clusters", "from 2 on, or 'auto'", "foo"]),
    "dictionary as large as the data": (
        ["--dictionary-size", "1797"],
        ["dictionary_size", "1797", "choose less"],
    ),
    "dictionary of one": (["--dictionary-size", "1"], ["dictionary_size", "2"]),
    "dictionary smaller than K": (["--dictionary-size", "9"], ["dictionary_size is 9", "10 clusters"]),
    "dictionary smaller than top_k": (
        ["--dictionary-size", "20", "--set", "top_k=20"],
        ["top_k is 20", "20 dictionary rows"],
    ),
    "batch too large": (["--batch-size", "5000"], ["5000", "1797", "lower it"]),
    "limit of 0": (["--limit", "0"], ["limit"]),
    "negative epochs": (["--epochs", "-1"], ["epochs"]),
    "seed too large": (["--seed", str(2**32)], ["seed", "less than 4294967296"]),
    "seed no number": (["--seed", "x"], ["--seed", "integer"]),
    "unknown flag": (["--epoch", "3"], ["--epoch", "ebsc run --help"]),
    "stray word": (["photos"], ["photos", "ebsc run --help"]),
    "empty data": (["--data", ""], ["data.name", "empty"]),
    "null character": (["--set", 'cache="a\\u0000b"'], ["cache", "null character"]),
    "unknown device": (["--device", "tpu"], ["tpu", "auto"]),
    "unknown precision": (["--precision", "fp8"], ["precision", "fp32"]),
    "too many coefficients": (["--limit", "50", "--set", "top_k=50"], ["top_k", "49"]),
    "solver in the joint phase": (
        ["--set", "joint.name=knn", "--set", "joint.form=reconstruction"],
        ["knn", "nothing to train"],
    ),
    "joint phase without a form": (["--set", "joint.start=0.5"], ["joint.start", "joint.form=neighbors"]),
    "search of a solver": (
        ["--coefficients", "elastic-net", "--set", "search.method=cells"],
        ["search.method", "elastic-net"],
    ),
    "unknown search": (["--set", "search.method=annoy"], ["search.method", "cells"]),
    "search without a look": (["--set", "search.probes=0"], ["search.probes"]),
    "embeddings without training": (["--epochs", "0", "--set", "express=embeddings"], ["embeddings"]),
    "dimension too large": (
        [
            *("--backbone", "identity", "--clusterer", "k-subspaces", "--set", "clusterer.dimension=64"),
            *("--set", "refine.steps=1"),
        ],
        ["clusterer.dimension", "64"],
    ),
    "missing config": (["--config", "nowhere.toml"], ["nowhere.toml"]),
    "malformed config": (["--config", "in/bad.toml"], ["bad.toml", "TOML"]),
    "unknown setting in config": (["--config", "in/unknown.toml"], ["train.epoch", "epochs"]),
    "missing npz": (["--data", "nowhere.npz"], ["nowhere.npz", "does not exist"]),
    "missing zip": (["--data", "nowhere.zip"], ["nowhere.zip", "does not exist"]),
    "wrong keys": (["--data", "in/keys.npz"], ["keys.npz", "'images'", "pictures"]),
    "wrong shape": (["--data", "in/shape.npz"], ["shape.npz", "(8, 8)"]),
    "wrong labels": (["--data", "in/labels.npz"], ["labels.npz", "(3,)", "(20,)"]),
    "pickled": (["--data", "in/pickled.npz"], ["pickled.npz", "never loaded"]),
    "not an archive": (["--data", "in/garbage.npz"], ["garbage.npz"]),
    "no labels, no clusters": (["--data", "in/good.npz"], ["--n-clusters"]),
    "empty folder": (["--data", "in/empty", "--n-clusters", "2"], ["in/empty", "no images"]),
    "fewer images than clusters": (["--data", "in/few", "--n-clusters", "4"], ["--n-clusters", "3 images"]),
    "unreadable image": (["--data", "in/bad", "--n-clusters", "2"], ["broken.png", "--skip-bad-images"]),
    "out is a file": (["--out", "in/file"], ["in/file", "is a file"]),
    "out holds files": (["--out", "in"], ["already holds files"]),
    "out below a file": (["--out", "in/file/run", "--epochs", "0"], ["in/file/run"]),
}


@pytest.mark.parametrize("case", CASES)
def test_one_clear_line(ebsc, inputs, tmp_path, case):
    arguments, expected = CASES[case]
    before = sorted(tmp_path.rglob("*"))
    out = [] if "--out" in arguments else ["--out", "run"]
    done = ebsc("run", *arguments, *out)
    assert done.code == 2
    assert len(done.err.splitlines()) == 1, done.err
    assert done.err.startswith("ebsc: error: ")
    for text in expected:
        assert text in done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_text_is_no_default_in_any_command(ebsc, tmp_path):
    np.savez(tmp_path / "rows.npz", features=np.random.default_rng(0).normal(size=(30, 4)))
    assert ebsc("cluster", "rows.npz", "--n-clusters", "2", "--coefficients", "knn", "--out", "run").code == 0
    commands = {
        ("features", "rows.npz", "--array", ""): "features.array",
        ("predict", "run", "rows.npz", "-o", "new.csv", "--device", ""): "device",
        ("similar", "run", "0", "--device", ""): "device",
    }
    for words, said in commands.items():
        done = ebsc(*words)
        assert done.code == 2, words
        assert done.err.startswith("ebsc: error: ")
        assert said in done.err


def test_a_search_by_a_library_that_is_not_there(ebsc, tmp_path, monkeypatch):
    monkeypatch.setattr("ebsc_core.runs.plan.find_spec", lambda name: None)
    done = ebsc("run", "--set", "search.method=faiss", "--out", "run")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert "pip install 'ebsc[faiss]'" in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_without_cuda(ebsc):
    done = ebsc("run", "--device", "cuda")
    assert done.code == 2
    assert "CUDA" in done.err
    assert len(done.err.splitlines()) == 1


def test_bad_images_are_skipped_only_when_asked(ebsc, inputs, tmp_path):
    flags = ("--data", "in/bad", "--n-clusters", "2", "--backbone", "identity", "--skip-bad-images")
    flags = (*flags, "--set", "refine.steps=1")
    done = ebsc("run", *flags, "--out", "run")
    assert done.code == 0, done.err
    assert "broken.png" in done.err
    assert (tmp_path / "run/assignments.csv").read_text().count("\n") == 4


def test_black_images_are_nothing_to_cluster(ebsc, inputs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = ebsc("run", "--data", "in/few", "--n-clusters", "2", "--backbone", "identity", "--out", "run")
    assert done.code == 2
    assert "all 3 rows, of 64 feature(s), have the same direction" in done.err


def test_a_failure_inside_the_run_leaves_no_directory(ebsc, tmp_path, monkeypatch):
    flags = ("--limit", "100", "--epochs", "2", "--backbone", "resnet10t", "--set", "train.lr=1e30")
    flags = (*flags, "--out", "run")
    done = ebsc("run", *flags)
    assert done.code == 2
    assert "diverged" in done.err
    assert [path.name for path in tmp_path.iterdir() if path.name != "in"] == []


SHORT = ("--limit", "50", "--backbone", "identity", "--set", "refine.steps=1", "--out", "run")


def test_paths_that_can_be_none_are_one_line(ebsc, tmp_path):
    (tmp_path / "circle").symlink_to("circle")
    for command in (["run", "--out", "circle"], ["run", "--out", "a" * 300], ["report", "a" * 300]):
        code, _, err = ebsc(*command)
        assert (code, err.count("\n")) == (2, 1), err
        assert command[-1] in err


def test_a_terminal_need_not_know_every_character(tmp_path):
    np.save(tmp_path / "x.npy", np.eye(4))
    command = [sys.executable, "-m", "ebsc_cli", "features", "x.npy"]
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=tmp_path, env=ascii_only, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 of 4 numbers" in done.stdout


def test_an_end_of_a_file_is_no_interrupt(ebsc, monkeypatch):
    def fail(*arguments, **flags):
        raise EOFError("no data left")

    monkeypatch.setattr("ebsc_core.runs.run.run", fail)
    with pytest.raises(EOFError, match="no data left"):
        ebsc("run")


def test_an_interrupt_says_so(ebsc, tmp_path, monkeypatch):
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ebsc_core.runs.clustering_stage.cluster_rows", interrupt)
    done = ebsc("run", *SHORT)
    assert done.code == 130
    assert done.err == "ebsc: interrupted; nothing was written\n"
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_says_no_more_than_is_true(ebsc, tmp_path, monkeypatch):
    """A command may have written something before."""

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    assert ebsc("run", *SHORT).code == 0
    monkeypatch.setattr("ebsc_core.curation.export.export_folder", interrupt)
    done = ebsc("export", "run", "--table", "t.csv", "--out", "sorted")
    assert (done.code, done.err) == (130, "ebsc: interrupted\n")
    assert (tmp_path / "t.csv").exists()
    monkeypatch.setattr("ebsc_core.plugins.observers.Observers.run_finished", interrupt)
    done = ebsc("run", *SHORT[:-1], "other")
    assert (done.code, done.err) == (130, "ebsc: interrupted\n")
    assert (tmp_path / "other/metrics.json").exists()


@pytest.mark.parametrize("path", [None, "there"])
def test_an_error_of_the_machine_is_one_line(ebsc, monkeypatch, path):
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr("ebsc_core.utils.cached_entries.entries_of", fail)
    done = ebsc("cache")
    where = f": {path}" if path else ""
    advice = "choose another path, free disk space or change the permissions"
    assert (done.code, done.err) == (2, f"ebsc: error: No space left on device{where}; {advice}\n")


def test_a_full_disk_is_one_line(ebsc, tmp_path, monkeypatch):
    def fail(*arguments: object) -> None:
        raise SafetensorError("no space left on device")

    monkeypatch.setattr("ebsc_core.utils.weights.save_file", fail)
    done = ebsc("run", *SHORT)
    assert done.code == 2
    warning, error = done.err.splitlines()  # the cache first, which need not be
    assert "not kept for reuse" in warning
    assert error.startswith("ebsc: error: cannot write run: ")
    assert list(tmp_path.iterdir()) == []

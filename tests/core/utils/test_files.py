"""What may be written over, and what stays."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from PIL import Image

from ebsc_core.utils.cached_entries import REMAINS
from ebsc_core.utils.errors import DataError
from ebsc_core.utils.files import check_writable, written_whole


def test_a_pipe_or_device_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(DataError, match="not a file"):
        check_writable(path)
    with pytest.raises(DataError, match="not a file"), written_whole(path) as temporary_path:
        temporary_path.write_text("x")
    assert path.is_fifo()


def test_a_link_stays_one_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    with written_whole(tmp_path / "link") as temporary_path:
        temporary_path.write_text("x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "x"


def test_nothing_is_written_through_a_link_that_somebody_has_put_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ebsc_core.utils.files.uuid4", lambda: UUID(int=0))  # somebody guesses the name
    (tmp_path / "mine").write_text("precious")
    with written_whole(tmp_path / "file") as temporary_path:
        temporary_path.touch()
        name = temporary_path.name
    (tmp_path / name).symlink_to(tmp_path / "mine")
    with written_whole(tmp_path / "file") as temporary_path:
        temporary_path.write_text("x")
    assert (tmp_path / "mine").read_text() == "precious"
    assert (tmp_path / "file").read_text() == "x"


def test_two_processes_of_one_number_write_apart(tmp_path: Path) -> None:
    path = tmp_path / "0123456789abcdef01234567"
    with written_whole(path) as one:
        one.write_text("first")
        with written_whole(path) as other:
            other.write_text("second")
        assert path.read_text() == "second"
        assert REMAINS.fullmatch(one.name)
    assert path.read_text() == "first"


@pytest.mark.parametrize("letters", ["a" * 255, "é" * 127, "語" * 85])
def test_any_name_that_a_file_may_have_can_be_written(tmp_path: Path, letters: str) -> None:
    others = [letters[:-1] + end for end in "xyz"]
    with ExitStack() as stack:
        paths = [stack.enter_context(written_whole(tmp_path / name)) for name in others]
        for path, name in zip(paths, others, strict=True):
            path.write_text(name)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: name for name in others}


def test_what_is_read_is_not_written_over(ebsc, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 5)))
    flags = ("--n-clusters", "2", "--coefficients", "knn")
    assert ebsc("cluster", "x.npy", *flags, "--out", "run").code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for out in ("x.npy", "run/assignments.csv", "run/run.toml", "run/manifest"):
        code, _, err = ebsc("predict", "run", "x.npy", "-o", out)
        assert (code, err.count("\n")) == (2, 1), err
        assert "would be lost" in err
    assert ebsc("compare", "run", "run", "-o", "run/metrics.json").code == 2
    assert ebsc("predict", "run", "x.npy", "-o", "x.npy/new.csv").code == 2
    refused = ebsc("outliers", "run", "-o", "run/decisions.json")  # which the run does not have yet
    assert refused.code == 2
    assert "has the name of a file of a run" in refused.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    for _ in range(2):  # over one's own
        assert ebsc("predict", "run", "x.npy", "-o", "run/new.csv").code == 0


@pytest.mark.parametrize(
    ("words", "suffix"),
    [
        (("predict", "run", "x.npy", "-o", "new.json"), ".csv"),
        (("predict", "run", "x.npy", "-o", "new.PARQUET"), ".csv"),
        (("predict", "run", "x.npy", "-o", "new.h5"), ".csv"),
        (("predict", "run", "x.npy", "-o", "new.csv", "--features", "f.csv"), ".h5 or .hdf5"),
        (("features", "extract", "digits", "--backbone", "identity", "-o", "f.npz"), ".h5 or .hdf5"),
        (("compare", "run", "run", "-o", "new.json"), ".html"),
        (("export", "run", "--out", "new", "--fiftyone", "labels.csv"), ".json"),
        (("export", "run", "--out", "new", "--label-studio", "tasks.csv"), ".json"),
    ],
)
def test_no_file_gets_a_name_that_says_another_form(
    ebsc, tmp_path: Path, words: tuple[str, ...], suffix: str
) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 5)))
    flags = ("--n-clusters", "2", "--coefficients", "knn", "--out", "run")
    assert ebsc("cluster", "x.npy", *flags).code == 0
    before = set(tmp_path.rglob("*"))
    done = ebsc(*words)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert f"under a misleading name; give one that ends in {suffix}\n" in done.err
    assert set(tmp_path.rglob("*")) == before
    for name in ("new", "new.txt"):
        assert ebsc("predict", "run", "x.npy", "-o", name).code == 0


QUICK = ("--backbone", "identity", "--epochs", "0", "--coefficients", "knn", "--cache", "none", "-q")


@pytest.fixture
def run(ebsc, tmp_path: Path) -> Path:
    """A run on a folder of images, one of which lies deeper."""
    (tmp_path / "photos/deep").mkdir(parents=True)
    for number in range(16):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / ("deep" if number == 15 else "") / f"{number}.PNG")
    flags = ("--n-clusters", "2", "--set", "data.labels=none", "--out", "run")
    assert ebsc("run", "--data", "photos", *QUICK, *flags).code == 0
    (tmp_path / "w.safetensors").write_bytes(b"weights")
    (tmp_path / "link").symlink_to("photos")
    (tmp_path / "link.csv").symlink_to("photos/1.PNG")
    return tmp_path / "run"


EXTRACT = ("features", "extract", "photos", "--backbone", "identity", "-o")


@pytest.mark.parametrize(
    "words",
    [
        *((*EXTRACT, f"run/{name}") for name in ("features.h5", "assignments.csv", "run.toml", "manifest")),
        (*EXTRACT, "photos/1.PNG"),
        (*EXTRACT, "w.safetensors", "--weights", "w.safetensors"),
        (*EXTRACT, "w.safetensors", "--set", "backbone.weights=w.safetensors"),
        ("predict", "run", "photos", "-o", "photos/1.PNG"),
        ("predict", "run", "photos", "-o", "photos/deep/15.PNG"),
        ("predict", "run", "photos", "-o", "link/1.PNG"),
        ("predict", "run", "link", "-o", "photos/1.PNG"),
        ("predict", "run", "photos", "-o", "link.csv"),
        ("predict", "run", "photos", "-o", "new.csv", "--features", "photos/1.PNG"),
        ("predict", "other", "photos", "-o", "run/metrics.json"),
        ("duplicates", "photos", "--picture", "photos/1.PNG"),
        ("duplicates", "photos", "-o", "run/assignments.csv"),
        ("duplicates", "run", "--picture", "photos/1.PNG"),
        ("compare", "run", "other", "-o", "third/checkpoints/backbone.safetensors"),
    ],
)
def test_no_command_writes_over_its_images_its_weights_or_files_of_a_run(
    ebsc, run: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    for other in ("other", "third"):
        shutil.copytree(run, tmp_path / other)
    (tmp_path / "third/checkpoints").mkdir(exist_ok=True)
    (tmp_path / "third/checkpoints/backbone.safetensors").write_bytes(b"weights")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = ebsc(*words)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert "would be lost" in done.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_result_beside_the_images_or_in_a_run_is_written_again(ebsc, run: Path, tmp_path: Path) -> None:
    for _ in range(2):
        for out in ("photos/out.csv", "run/mine.csv"):
            assert ebsc("predict", "run", "photos", "-o", out).code == 0
        for out in ("photos/features.h5", "features.h5", "run/mine.h5"):
            assert ebsc(*EXTRACT, out).code == 0
        assert ebsc("duplicates", "run", "-o", "photos/duplicates.csv").code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("duplicates", "photos", "--picture", "photos/pairs.png"),
        ("duplicates", "run", "--picture", "link/pairs.png"),
        ("predict", "run", "photos", "-o", "photos/deep/new"),
        (*EXTRACT, "photos/new"),
    ],
)
def test_no_new_file_may_count_as_an_image_of_the_folder(
    ebsc, run: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    before = set(tmp_path.rglob("*"))
    done = ebsc(*words)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert "where it might count as a further image" in done.err
    assert set(tmp_path.rglob("*")) == before

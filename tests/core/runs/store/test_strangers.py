"""Run directories of somebody else: they make no command read or write outside of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from ebsc_core.config.loading import write_toml
from ebsc_core.estimators.finished_run import FinishedRun, Folder
from ebsc_core.runs.store.directory import RunDirectory
from ebsc_core.runs.store.listing import list_runs
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.runs.store.unfinished import UNFINISHED, WORK, load_unfinished
from ebsc_core.utils.errors import DataError, EbscError, RunDirectoryError
from ebsc_core.utils.paths import features_folder, is_cache, mark_cache
from ebsc_core.utils.progress import Progress

SECRET = "precious"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of the user's, which must stay as it is."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text(SECRET)
    return tmp_path / "mine"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(12):
        Image.new("L", (8, 8), 20 * number).save(tmp_path / f"photos/{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def run(ebsc, tmp_path: Path, photos: Path) -> Path:
    """A finished run without a manifest, as anybody can make one."""
    quick = ("--backbone", "identity", "--coefficients", "knn", "--n-clusters", "2", "-q")
    assert ebsc("run", "--data", photos, *quick, "--out", "run").code == 0
    (tmp_path / "run/manifest").unlink()
    return tmp_path / "run"


def untouched(mine: Path) -> bool:
    return {path.name: path.read_text() for path in mine.iterdir()} == {"file": SECRET}


@pytest.mark.parametrize(
    "name",
    [
        "run.toml",
        "metrics.json",
        "assignments.csv",
        "features.h5",
        "affinity.npz",
        "checkpoints",
        "report.html",
    ],
)
def test_no_file_of_a_finished_run_leads_outside(
    ebsc, run: Path, mine: Path, photos: Path, name: str
) -> None:
    target = mine / "file"
    if name == "report.html":
        (run / name).unlink(missing_ok=True)
    else:
        target = shutil.move(run / name, run.parent / f"elsewhere-{name}")
    (run / name).symlink_to(target)
    read_by = {
        "report": {
            "run.toml",
            "metrics.json",
            "assignments.csv",
            "features.h5",
            "affinity.npz",
            "report.html",
        },
        "predict": {"run.toml", "assignments.csv", "features.h5", "checkpoints"},
        "compare": {"run.toml", "metrics.json", "assignments.csv"},
    }
    commands = {
        "report": ("report", run),
        "predict": ("predict", run, photos, "-o", "out.csv"),
        "compare": ("compare", run, run),
    }
    for command, names in read_by.items():
        done = ebsc(*commands[command])
        assert done.code == (2 if name in names else 0), done.err
        if name in names:
            assert f"{name} is a link" in done.err
    assert untouched(mine)
    if name in ("run.toml", "metrics.json"):
        assert f"{name} is a link" in list_runs(run)[0].problem


def test_pipes_are_not_waited_for(run: Path) -> None:
    for name in ("metrics.json", "run.toml"):
        (run / name).unlink()
        os.mkfifo(run / name)
        assert list_runs(run)[0].state == "damaged"
        with pytest.raises(EbscError):
            SavedRun(run)
    os.mkfifo(run / UNFINISHED)
    assert list_runs(run)[0].state == "damaged"


@pytest.mark.parametrize("external", ["link", "storage", "virtual"])
def test_features_are_in_the_run_itself(run: Path, mine: Path, external: str) -> None:
    with h5py.File(run / "features.h5", "r+") as file:
        rows = file["features"][:]
        del file["features"]
        with h5py.File(mine.parent / "other.h5", "w") as other:
            other["features"] = rows
        if external == "link":
            file["features"] = h5py.ExternalLink(str(mine.parent / "other.h5"), "features")
        elif external == "storage":
            (mine.parent / "raw").write_bytes(rows.tobytes())
            where = [(str(mine.parent / "raw"), 0, rows.nbytes)]
            file.create_dataset("features", rows.shape, rows.dtype, external=where)
        else:
            layout = h5py.VirtualLayout(rows.shape, rows.dtype)
            layout[:] = h5py.VirtualSource(mine.parent / "other.h5", "features", rows.shape)
            file.create_virtual_dataset("features", layout)
    with pytest.raises(RunDirectoryError, match=r"features\.h5 is damaged"):
        _ = SavedRun(run).rows


def test_what_declares_more_than_it_holds_takes_no_memory(run: Path) -> None:
    with h5py.File(run / "features.h5", "r+") as file:
        del file["features"]
        file.create_dataset("features", (12, 10**10), "f4", chunks=(1, 1024))
    with pytest.raises(RunDirectoryError, match="declares far more"):
        _ = SavedRun(run).rows
    zeros = np.zeros(10**7)
    np.savez_compressed(run / "affinity.npz", data=zeros, indices=zeros, indptr=zeros, shape=(12, 12))
    with pytest.raises(RunDirectoryError, match="declares far more"):
        _ = SavedRun(run).affinity


def test_the_data_set_is_said_before_it_is_read(ebsc, run: Path, photos: Path) -> None:
    done = ebsc("report", run)
    assert done.out.startswith(f"reading the images of the run again: {photos}\n")
    named = {"name": "mnist", "root": f"{run.parent}/mine-too"}
    write_toml(run / "run.toml", SavedRun(run).tables | {"data": named})
    done = ebsc("report", run)
    assert f"reading the images of the run again: mnist in {run.parent}/mine-too\n" in done.out
    assert "missing" in done.err  # and not downloaded to there
    assert not (run.parent / "mine-too").exists()


def test_an_estimator_downloads_nothing_to_where_a_run_says(run: Path) -> None:
    named = {"name": "mnist", "root": f"{run.parent}/mine-too"}
    write_toml(run / "run.toml", SavedRun(run).tables | {"data": named})
    with pytest.raises(DataError, match="mnist is missing"):
        FinishedRun(Folder(str(run)), "cpu").assign("mnist", Progress())
    assert not (run.parent / "mine-too").exists()


class TestAnUnfinishedOne:
    @pytest.fixture
    def begun(self, tmp_path: Path) -> Path:
        (tmp_path / "begun").mkdir()
        (tmp_path / "begun" / UNFINISHED).write_text("seed = 1\n")
        return tmp_path / "begun"

    def test_has_no_hidden_folder_elsewhere(self, ebsc, begun: Path, mine: Path) -> None:
        (begun / WORK).symlink_to(mine)
        for arguments in (("resume", begun), ("run", "--out", begun)):
            assert ebsc(*arguments).code == 2
        with pytest.raises(RunDirectoryError, match="is a link"):
            RunDirectory(begun, resuming=True)
        (begun / UNFINISHED).unlink()
        with pytest.raises(RunDirectoryError, match="already holds files"):
            RunDirectory(begun)
        assert untouched(mine)

    @pytest.mark.parametrize("name", [UNFINISHED, f"{WORK}/lock"])
    def test_has_no_file_elsewhere(self, begun: Path, mine: Path, name: str) -> None:
        (begun / WORK).mkdir()
        (begun / name).unlink(missing_ok=True)
        (begun / name).symlink_to(mine / "file")
        with pytest.raises(RunDirectoryError, match="is a link"):
            load_unfinished(begun, {})
        with pytest.raises(RunDirectoryError, match="is a link"):
            RunDirectory(begun, resuming=True)
        assert untouched(mine)

    def test_names_no_folder_that_is_no_cache(self, ebsc, begun: Path, mine: Path) -> None:
        (begun / UNFINISHED).write_text(f'seed = 1\ncache = "{mine}"\n')
        done = ebsc("resume", begun)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert f"--cache {mine}" in done.err
        assert untouched(mine)
        assert load_unfinished(begun, {"cache": str(mine)}).cache == str(mine)
        mark_cache(mine.parent / "cache")
        (begun / UNFINISHED).write_text(f'cache = "{mine.parent}/cache"\n')
        assert load_unfinished(begun, {}).cache == f"{mine.parent}/cache"

    @pytest.mark.parametrize("cache", [None, "none"])
    def test_may_use_the_user_s_own_cache_or_none(self, begun: Path, cache: str | None) -> None:
        (begun / UNFINISHED).write_text(f'cache = "{cache or features_folder(None)}"\n')
        load_unfinished(begun, {})

    def test_that_was_changed_is_refused(self, tmp_path: Path) -> None:
        with RunDirectory(tmp_path / "run", {"seed": 3, "train": {"lr": 0.5}}) as directory:
            directory.lock.close()  # type: ignore[union-attr]
            file = tmp_path / "run" / UNFINISHED
            whole = file.read_bytes()
            load_unfinished(tmp_path / "run", {})
            for at in range(len(whole)):
                file.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
                with pytest.raises(EbscError):
                    load_unfinished(tmp_path / "run", {})
            file.write_bytes(whole)


def test_a_cache_is_one_that_is_marked(tmp_path: Path) -> None:
    assert not is_cache(tmp_path)
    mark_cache(tmp_path)
    mark_cache(tmp_path)
    assert is_cache(tmp_path)
    (tmp_path / "CACHEDIR.TAG").write_bytes(b"\xff")
    assert not is_cache(tmp_path)

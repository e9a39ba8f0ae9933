"""The most similar images of one in the run, or of a new one."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ebsc_core.curation.similar import find_similar
from ebsc_core.runs.predict import Predictor
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.errors import ConfigError
from ebsc_core.utils.progress import Progress

QUICK = ("--backbone", "identity", "--epochs", "0", "--coefficients", "knn", "--n-clusters", "3")
QUICK = (*QUICK, "--out", "run")


def listed(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def run(ebsc, photos) -> Path:
    folder = photos(40, 16)
    assert ebsc("run", "--data", folder, *QUICK).code == 0
    return folder


@pytest.mark.parametrize("wanted", ["007.png", "7", "photos/007.PNG"])
def test_one_of_the_run_by_name_or_number(ebsc, tmp_path: Path, run: Path, wanted: str) -> None:
    done = ebsc("similar", "run", wanted, "--top", "5", "-o", "s.csv")
    assert done.code == 0, done.err
    saved = SavedRun(tmp_path / "run")
    rows = saved.rows.held().numpy()
    cosines = rows @ rows[7]
    cosines[7] = -2
    expected = np.argsort(-cosines)[:5]
    lines = listed(tmp_path / "s.csv")
    assert [line["image"] for line in lines] == [f"{at:03}.png" for at in expected]
    assert [int(line["cluster"]) for line in lines] == saved.assignments.clusters[expected].tolist()
    assert np.allclose([float(line["similarity"]) for line in lines], cosines[expected], atol=1e-4)
    assert f"{expected[0]:03}.png" in done.out


def test_a_number_is_a_name_where_all_names_are_numbers(ebsc, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
    np.savez(tmp_path / "a.npz", images=images)
    assert ebsc("run", "--data", "a.npz", "--limit", "20", *QUICK).code == 0
    names = SavedRun(tmp_path / "run").assignments.ids
    (absent, *_), (present, *_) = (str(i) for i in range(20) if str(i) not in names), names[3:]
    done = ebsc("similar", "run", absent)
    assert done.code == 2
    assert f"{absent} is no image of run and no file" in done.err
    assert f"image {present} of the run" in ebsc("similar", "run", present).out
    assert ebsc("similar", "run", "9" * 5000).code == 2


def test_a_row_is_meant_even_if_there_is_a_file_of_its_name(ebsc, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    np.savez(tmp_path / "f.npz", features=rows, ids=[f"{at}.png" for at in range(40)])
    assert ebsc("cluster", "f.npz", "--coefficients", "knn", "--n-clusters", "2", "--out", "run").code == 0
    (tmp_path / "7.png").write_bytes(b"some image")
    done = ebsc("similar", "run", "7.png")
    assert done.code == 0, done.err
    assert "image 7.png of the run" in done.out


def test_what_is_neither_is_said(ebsc, run: Path) -> None:
    done = ebsc("similar", "run", "7.png")
    assert done.code == 2
    assert "7.png is no image of run and no file" in done.err


def test_a_new_image_goes_through_the_network(ebsc, tmp_path: Path, run: Path) -> None:
    shutil.copy(run / "011.png", tmp_path / "new.png")
    done = ebsc("similar", "run", "new.png", "--top", "3", "-o", "s.csv")
    assert done.code == 0, done.err
    first = listed(tmp_path / "s.csv")[0]
    assert (first["image"], first["similarity"]) == ("011.png", "1.0")
    assert f"joins cluster {first['cluster']}" in done.out
    assert "name" not in first

    assert ebsc("name", "run", first["cluster"], "herbs").code == 0
    done = ebsc("similar", "run", "new.png", "--top", "3", "-o", "s.csv")
    assert listed(tmp_path / "s.csv")[0]["name"] == "herbs"
    assert "joins cluster herbs" in done.out
    assert f"{first['cluster']} herbs" in done.out


def test_tables_of_all_forms_hold_numbers(ebsc, tmp_path: Path, run: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert ebsc("name", "run", "0", "herbs").code == 0
    found = []
    for form in ("csv", "json", "parquet"):
        assert ebsc("similar", "run", "7", "--top", "5", "-o", f"s.{form}").code == 0
    found = json.loads((tmp_path / "s.json").read_text())
    assert found == parquet.read_table(tmp_path / "s.parquet").to_pylist()
    assert [{name: str(value) for name, value in one.items()} for one in found] == listed(tmp_path / "s.csv")
    types = {"image": str, "similarity": float, "cluster": int, "confidence": float, "name": str}
    assert {name: type(value) for name, value in found[0].items()} == types


def test_how_many_is_checked_before_the_network_is_loaded(ebsc, tmp_path: Path, run: Path) -> None:
    assert "Invalid value for '--top'" in ebsc("similar", "run", "new.png", "--top", "0").err
    shutil.copy(run / "011.png", tmp_path / "new.png")

    def loaded() -> Predictor:
        raise AssertionError("the network is loaded")

    with pytest.raises(ConfigError, match="`top` is 0"):
        find_similar(SavedRun(tmp_path / "run"), str(tmp_path / "new.png"), 0, loaded, Progress())


def test_rows_have_no_network(ebsc, tmp_path: Path, photos) -> None:
    np.save(tmp_path / "f.npy", np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32))
    assert ebsc("cluster", "f.npy", "--coefficients", "knn", "--n-clusters", "2", "--out", "run").code == 0
    assert ebsc("similar", "run", "39", "--top", "99", "-o", "s.csv").code == 0
    assert len(listed(tmp_path / "s.csv")) == 39
    done = ebsc("similar", "run", photos(1, 8) / "000.png")
    assert done.code == 2
    assert "has no network for" in done.err


def test_what_was_held_out_has_no_row(ebsc, photos) -> None:
    folder = photos(40, 16)
    assert ebsc("run", "--data", folder, *QUICK, "--set", "protocol=train-test").code == 0
    held_out = SavedRun(Path("run")).assignments.ids[-1]
    done = ebsc("similar", "run", held_out)
    assert done.code == 2
    assert "was held out" in done.err
    assert ebsc("similar", "run", folder / held_out).code == 0

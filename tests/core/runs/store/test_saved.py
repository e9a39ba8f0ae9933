"""A run read back: what was written is found, and what is damaged is named."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import sparse

from ebsc_core.config.schema import FeaturesChoice
from ebsc_core.data.features.summary import feature_facts
from ebsc_core.runs.store.directory import AFFINITY, ASSIGNMENTS, CONFIG, METRICS
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.errors import EbscError, RunDirectoryError
from ebsc_core.utils.manifest import MANIFEST

N = 120


@pytest.fixture
def run(ebsc, tmp_path: Path) -> Path:
    flags = ("--backbone", "identity", "--epochs", "0", "--limit", N, "--set", "refine.steps=5")
    assert ebsc("run", *flags, "--set", "protocol=train-test", "--out", "run").code == 0
    return tmp_path / "run"


@pytest.fixture
def old(run: Path) -> Path:
    """A run of a version that wrote no manifest, so that damage shows where a file is read."""
    (run / MANIFEST).unlink()
    return run


def test_everything_is_read_back(run: Path) -> None:
    saved = SavedRun(run)
    found = saved.assignments
    assert (len(found.ids), found.fitted) == (N, 96)
    assert found.labels is not None
    assert set(found.labels) <= set("0123456789")
    assert found.clusters.max() + 1 == len(saved.metrics["label_free"]["cluster_sizes"])
    assert ((found.confidence >= 0) & (found.confidence <= 1)).all()
    assert saved.config.top_k == saved.tables["top_k"]
    assert (len(saved.rows), saved.rows.width) == (96, 64)
    assert saved.affinity is not None
    within = saved.affinity.copy()
    same = found.clusters[:96, None] == found.clusters[None, :96]
    share = within.multiply(same).sum() / within.sum()
    assert share == pytest.approx(found.confidence[:96].mean(), abs=0.05)
    assert saved.provenance["images"]["height"] == 8
    assert np.allclose(saved.affinity.toarray(), saved.affinity.toarray().T)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (CONFIG, b"x = [", "TOML"),
        (CONFIG, b"seed = 'x'", "seed"),
        (METRICS, b"{", "damaged"),
        (METRICS, b"[]", "damaged"),
        (ASSIGNMENTS, b"", "damaged"),
        (ASSIGNMENTS, b"image,cluster\n1,2\n", "damaged"),
        (ASSIGNMENTS, b"image,cluster,confidence\n1,x,0.5\n", "damaged"),
        (ASSIGNMENTS, b"image,cluster,confidence\n1,0,0.5\n2,0\n", "line 3 has 2 entries, not 3"),
        (ASSIGNMENTS, b"image,cluster,confidence\n1,7,0.5\n", "clusters"),
        (ASSIGNMENTS, b"image,cluster,confidence\n1,0," + b"5" * 200_000, "damaged"),
        (METRICS, b'{"images": 1, "scores": 3}', "'scores'"),
        (AFFINITY, b"PK", "damaged"),
        (AFFINITY, b"", "damaged"),
        ("features.h5", b"HDF", "features.h5"),
    ],
)
def test_a_damaged_file_is_named(old: Path, name: str, content: bytes, said: str) -> None:
    (old / name).write_bytes(content)
    saved = SavedRun(old)

    def read_all() -> None:
        _ = saved.tables, saved.config, saved.metrics, saved.assignments, saved.affinity, saved.rows

    with pytest.raises(RunDirectoryError, match=said) as raised:
        read_all()
    assert str(old / name) in str(raised.value)


def test_an_affinity_that_is_none_is_said(old: Path) -> None:
    matrix = sparse.load_npz(old / AFFINITY)
    beyond = {"indices": matrix.indices + N, "indptr": matrix.indptr, "shape": matrix.shape, "format": b"csr"}
    for write in (
        lambda: sparse.save_npz(old / AFFINITY, matrix * np.nan),
        lambda: sparse.save_npz(old / AFFINITY, matrix * 1j),
        lambda: np.savez(old / AFFINITY, data=matrix.data, **beyond),
    ):
        write()
        with pytest.raises(RunDirectoryError, match=r"affinity\.npz is damaged"):
            _ = SavedRun(old).affinity


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda rows: rows[:50], "features.h5 has 50 rows, assignments.csv 96"),
        (lambda rows: rows[:, 0], "no rows of real numbers"),
        (lambda rows: rows.astype("c8"), "no rows of real numbers"),
        (lambda rows: rows * np.nan, "NaN or infinity"),
    ],
)
def test_features_that_are_none_of_the_run_are_said(old: Path, wrong, said: str) -> None:
    with h5py.File(old / "features.h5", "r+") as file:
        rows = wrong(file["features"][:])
        del file["features"]
        file["features"] = rows
    with pytest.raises(EbscError, match=said):
        _ = list(SavedRun(old).rows.blocks())


def test_assignments_that_a_spreadsheet_has_saved_are_read(old: Path) -> None:
    text = (old / ASSIGNMENTS).read_bytes()
    (old / ASSIGNMENTS).write_bytes(b"\xef\xbb\xbf" + text)
    assert len(SavedRun(old).assignments.ids) == N


def test_assignments_are_read_line_by_line(old: Path) -> None:
    (old / ASSIGNMENTS).write_text(
        "image,cluster,confidence\n" + "".join(f"photographs/{i:06}.png,{i % 7},0.5\n" for i in range(20_000))
    )
    saved = SavedRun(old)
    _ = saved.config
    tracemalloc.start()
    try:
        assert len(saved.assignments.ids) == 20_000
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * held


def test_what_is_no_run_is_said(run: Path, tmp_path: Path) -> None:
    for path, said in ((tmp_path / "none", "does not exist"), (run / CONFIG, "is a file")):
        with pytest.raises(RunDirectoryError, match=said):
            SavedRun(path)
    (run / METRICS).unlink()
    with pytest.raises(RunDirectoryError, match=r"no finished run: metrics\.json is missing"):
        SavedRun(run)


def test_a_run_without_its_affinity_has_none(old: Path) -> None:
    (old / AFFINITY).unlink()
    assert SavedRun(old).affinity is None


def test_facts_of_features_pass_over_what_is_no_array(run: Path) -> None:
    with h5py.File(run / "features.h5", "r+") as file:
        file.create_group("notes")
    (run / MANIFEST).unlink()  # the file is no longer the one that was written
    assert "notes" not in feature_facts(FeaturesChoice(path=str(run / "features.h5")))["arrays"]

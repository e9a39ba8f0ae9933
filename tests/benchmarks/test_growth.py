"""The growth benchmark, at sizes that take no time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest

SPEED = Path(__file__).resolve().parents[2] / "benchmarks" / "speed"


@pytest.fixture
def growth(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SPEED)
    import growth

    return growth


def test_the_rows_lie_near_their_subspaces(growth: ModuleType, tmp_path: Path) -> None:
    for n in (3000, 2000):
        growth.write(tmp_path / f"{n}.h5", n, 0.05, 128)
    with h5py.File(tmp_path / "3000.h5") as more, h5py.File(tmp_path / "2000.h5") as less:
        rows, labels = more["features"][:], more["labels"][:]
        np.testing.assert_array_equal(rows[:2000], less["features"])
        np.testing.assert_array_equal(labels[:2000], less["labels"])
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=0.02)
    for label in range(10):
        own = rows[labels == label]
        _, _, directions = np.linalg.svd(own, full_matrices=False)
        outside = own - own @ directions[:6].T @ directions[:6]
        assert np.linalg.norm(outside, axis=1).mean() == pytest.approx(0.05, rel=0.1)


def test_the_exponent_is_the_slope_of_the_larger_sizes(growth: ModuleType) -> None:
    def result(n: int, seconds: float) -> dict:
        return {"rows": n, "seconds": dict.fromkeys(("wall", "cpu"), seconds)}

    results = [result(10, 1e9), *(result(n, (n / 1000) ** 1.2) for n in (1000, 4000, 9000))]
    found = growth.exponents(results, since=1000)
    assert found["cpu"] == pytest.approx(1.2)
    assert growth.exponents(results, since=9000) is None


@pytest.mark.slow
def test_a_record_of_both_ways(tmp_path: Path) -> None:
    flags = ("--rows", "1500", "2500", "--ways", "all", "sample", "--dictionary", "500", "--since", "1500")
    command = [sys.executable, str(SPEED / "growth.py"), *flags, "--out", str(tmp_path / "growth.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "growth.json").read_text())
    assert [result["rows"] for result in record["results"]["sample"]] == [1500, 2500]
    for result in [*record["results"]["all"], *record["results"]["sample"]]:
        assert result["scores"]["acc"] > 0.99
        assert sum(result["stages"]["wall"].values()) <= result["seconds"]["wall"]
    assert all(value > 0.99 for value in record["agreements"].values())
    assert record["exponents"]["all"].keys() == {"wall", "cpu"}
    assert record["machine"]["threads"] >= 1

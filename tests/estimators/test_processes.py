"""Estimators in processes that a program forks: they end, say the same, and leave no folders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
PATIENCE = 240
BEGIN = """
import multiprocessing, sys
import numpy as np
import torch
from ebsc_core import EBSC, EnergySubspaceClustering

if sys.argv[1] == "rows":
    X = np.random.default_rng(0).normal(size=(600, 100))
    model = EnergySubspaceClustering(3, coefficients="knn", random_state=0)
else:
    X = np.random.default_rng(0).integers(0, 255, (200, 16, 16), dtype=np.uint8)
    model = EBSC(3, backbone="identity", epochs=0, coefficients="knn")
"""
FORKS = f"""{BEGIN}
labels, later = model.fit_predict(X), model.predict(X)

def both(number):
    again = type(model)(**model.get_params()).fit_predict(X)
    return np.array_equal(model.predict(X), later), np.array_equal(again, labels), torch.get_num_threads()

with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(both, range(2)))
print(np.array_equal(model.predict(X), later), torch.get_num_threads())
"""
LEAVES = f"""{BEGIN}
def work():
    global held
    held = model.fit(X)  # until the process ends

def drop():
    global model
    model = None  # that of the parent

process = multiprocessing.get_context("fork").Process(target=work)
process.start()
process.join()
model.fit(X)
process = multiprocessing.get_context("fork").Process(target=drop)
process.start()
process.join()
print(process.exitcode, len(model.predict(X)))
"""


def output(folder: Path, script: str, kind: str) -> str:
    environment = os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-c", script, kind]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["rows", "images"])
def test_a_forked_process_fits_and_predicts_the_same(tmp_path: Path, kind: str) -> None:
    assert output(tmp_path, FORKS, kind) == "[(True, True, 2), (True, True, 2)]\nTrue 2\n"
    assert not list(tmp_path.glob("ebsc-*"))


def test_a_process_removes_its_own_folder_and_no_other(tmp_path: Path) -> None:
    assert output(tmp_path, LEAVES, "images") == "0 200\n"
    assert not list(tmp_path.glob("ebsc-*"))

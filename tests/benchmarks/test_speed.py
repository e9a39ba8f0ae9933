"""The scripts of benchmarks/speed, at sizes that take no time."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components
from sklearn.metrics import adjusted_rand_score

SPEED = Path(__file__).resolve().parents[2] / "benchmarks" / "speed"

FAKE = """
import os
import time

def start(name, path, nap=0.0, fails_at=None):
    done = 0
    if fails_at == "start":
        raise ImportError("no such package")

    def work():
        nonlocal done
        done += 1
        with open(path, "a") as file:
            file.write(name)
        if done == fails_at:
            raise ValueError("it went wrong\\nand this is how")
        time.sleep(nap)
        return done

    return work

def judge(result, name, *rest):
    return {"result": result, "name": name}

def threads():
    return lambda: {name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}

def threads_of(result):
    return result
"""


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SPEED)
    import sides

    return sides


@pytest.fixture
def spectral(sides: ModuleType) -> ModuleType:
    import spectral

    return spectral


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    (tmp_path / "fake_side.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "fake_side", raising=False)
    import fake_side

    return fake_side


def script(name: str, *arguments: Any) -> dict[str, Any]:
    """Run a script and return the record it leaves."""
    words = [sys.executable, str(SPEED / name), *map(str, arguments)]
    subprocess.run(words, check=True, capture_output=True, timeout=300)
    return json.loads(Path(arguments[-1]).read_text(encoding="utf-8"))


def test_sides_work_in_turn_and_the_warm_up_does_not_count(
    sides: ModuleType, fake: ModuleType, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    slow = sides.Side("b", fake.start, ("b", log, 0.05), fake.judge)
    once = sides.Side("c", fake.start, ("c", log), fake.judge, once=True)
    record = sides.compare([sides.Side("a", fake.start, ("a", log), fake.judge), slow, once], rounds=3)
    assert log.read_text() == "ab" + "abc" + "ab" + "ab"
    assert [found["result"] for found in record["sides"]["a"]["figures"]] == [2, 3, 4]
    each = record["sides"]["b"]["each_s"]["wall"]
    assert len(each) == 3
    assert record["sides"]["b"]["median_s"]["wall"] == pytest.approx(sorted(each)[1], abs=1e-4)
    assert min(each) >= 0.05
    assert len(record["sides"]["c"]["each_s"]["wall"]) == 1
    assert {"commit", "machine", "versions", "load_average"} <= record.keys()


def test_a_side_that_fails_leaves_the_others_at_work(
    sides: ModuleType, fake: ModuleType, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    missing = sides.Side("b", fake.start, ("b", log, 0.0, "start"), fake.judge)
    breaks = sides.Side("c", fake.start, ("c", log, 0.0, 3), fake.judge)
    record = sides.compare([sides.Side("a", fake.start, ("a", log), fake.judge), missing, breaks], rounds=3)
    assert log.read_text() == "ac" + "ac" + "ac" + "a"
    assert record["sides"]["b"] == {"failure": "ImportError: no such package"}
    assert record["sides"]["c"]["failure"] == "ValueError: it went wrong"
    assert len(record["sides"]["c"]["each_s"]["cpu"]) == 1
    assert record["times_faster"]["wall"]["than"] == "c"


def test_a_side_that_takes_too_long_is_ended(sides: ModuleType, fake: ModuleType, tmp_path: Path) -> None:
    slow = sides.Side("b", fake.start, ("b", tmp_path / "log", 60.0), fake.judge)
    quick = sides.Side("a", fake.start, ("a", tmp_path / "log"), fake.judge)
    record = sides.compare([quick, slow], rounds=1, limit_s=3)
    assert record["sides"]["b"] == {"failure": "not done after 3 s"}
    assert record["times_faster"] == {}


def test_each_side_has_the_threads_it_was_promised(sides: ModuleType, fake: ModuleType) -> None:
    before = dict(os.environ)
    record = sides.compare([sides.Side("a", fake.threads, (), fake.threads_of)], rounds=1, threads=3)
    assert record["sides"]["a"]["figures"] == [{"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3"}]
    assert record["machine"]["threads"] == 3
    assert dict(os.environ) == before


def test_the_ratio_is_to_the_fastest_other_side(sides: ModuleType) -> None:
    records = {
        "ours": {"median_s": {"wall": 2.0, "cpu": 4.0}},
        "slow": {"median_s": {"wall": 9.0, "cpu": 6.0}},
        "fast": {"median_s": {"wall": 5.0, "cpu": 8.0}},
        "broken": {"failure": "why"},
    }
    assert sides.times_faster(records) == {
        "wall": {"than": "fast", "ratio": 2.5},
        "cpu": {"than": "slow", "ratio": 1.5},
    }
    assert sides.times_faster({"ours": {"failure": "why"}, "slow": records["slow"]}) == {}


@pytest.mark.slow
def test_spectral_scores_every_side(tmp_path: Path) -> None:
    tiny = ["--nodes", 1200, "--per-row", 10, "--clusters", 3, "--rounds", 1, "--solvers", "lobpcg"]
    record = script("spectral.py", *tiny, "--out", tmp_path / "r.json")
    assert record["sides"]["ours"]["figures"] == [{"ari": 1.0}]
    assert set(record["sides"]) == {"ours", "lobpcg"}
    assert record["times_faster"]["cpu"]["than"] == "lobpcg"
    assert record["settings"]["nodes"] == "1200"


@pytest.mark.parametrize("graph", ["blocks", "rings"])
def test_blocks_are_uneven_and_disconnected(spectral: ModuleType, graph: str) -> None:
    options = argparse.Namespace(graph=graph, clusters=4, per_row=8, nodes=1000)
    affinity, labels = spectral.disconnected(options, np.random.default_rng(0))
    assert affinity.shape == (1000, 1000)
    assert (affinity != affinity.T).nnz == 0
    assert affinity.diagonal().max() == 0
    pieces, piece = connected_components(affinity)
    assert pieces == 4 + spectral.ISOLATED
    sizes = sorted(np.bincount(labels[labels >= 0]))
    assert sizes[-1] / sizes[0] == pytest.approx(4, abs=0.1)
    assert adjusted_rand_score(labels[labels >= 0], piece[labels >= 0]) == 1


@pytest.mark.parametrize("model", ["knn", "energy"])
def test_spectral_makes_the_affinity_of_given_features(
    spectral: ModuleType, tmp_path: Path, model: str
) -> None:
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(3), 60)
    rows = np.einsum("nd,ndw->nw", rng.normal(size=(180, 2)), rng.normal(size=(3, 2, 12))[classes])
    np.savez(tmp_path / "x.npz", x=rows.astype(np.float32), y=classes)
    options = argparse.Namespace(graph=str(tmp_path / "x.npz"), nodes=150, per_row=5, model=model, seed=0)
    spectral.build(options, tmp_path / "new" / "graph.npz")
    affinity, labels = spectral.load(tmp_path / "new" / "graph.npz")
    assert affinity.shape == (150, 150)
    assert 5 * 150 <= affinity.nnz <= 10 * 150
    within = labels[affinity.nonzero()[0]] == labels[affinity.nonzero()[1]]
    assert within.mean() > 0.8


@pytest.mark.slow
def test_startup_times_each_command(tmp_path: Path) -> None:
    record = script("startup.py", "--rounds", 2, "--out", tmp_path / "r.json")
    commands = {"ebsc --help", "ebsc plugins list", "ebsc run --help", "imports alone"}
    assert set(record["commands"]) == commands
    for figures in record["commands"].values():
        assert 0 < figures["cpu"]["median_s"] <= figures["cpu"]["slowest_s"] < 60


def test_ways_to_find_the_largest_inner_products(tmp_path: Path) -> None:
    flags = ("--rows", 1500, "--sides", "cells", "exact", "--rounds", 1, "--cell-rows", 64)
    record = script("top_k.py", *flags, "--out", tmp_path / "top-k.json")
    sides = record["rows"]["1500"]["sides"]
    assert sides["exact"]["figures"][0] == {"recall": 1, "same": 1}
    assert 0.7 < sides["cells"]["figures"][0]["recall"] < 1
    assert record["settings"]["cell_rows"] == 64


def test_many_clusters_are_timed_both_ways() -> None:
    words = [sys.executable, str(SPEED / "many_clusters.py"), "--clusters", "60", "--rows", "400"]
    printed = subprocess.run(words, check=True, capture_output=True, text=True, timeout=300).stdout
    merging, random = map(json.loads, printed.splitlines())
    assert (merging["way"], random["way"]) == ("merging", "random starts")
    assert merging["ari"] != random["ari"]


def test_the_exponent_of_a_search_counts_from_some_size_on(sides: ModuleType) -> None:
    import top_k

    def record(n: int, seconds: float) -> dict[str, Any]:
        median = {"wall": seconds, "cpu": seconds}
        return {"sides": {"cells": {"median_s": median}, "exact": {"failure": "not done"}}}

    records = {10: record(10, 1e9), 1000: record(1000, 1.0), 4000: record(4000, 8.0)}
    assert top_k.exponents(records, 1000) == {"cells": {"wall": 1.5, "cpu": 1.5}}
    assert top_k.exponents(records, 4000) == {}

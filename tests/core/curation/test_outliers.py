"""Foreign images come first, and it is said why."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from ebsc_core.clustering.search import Found
from ebsc_core.config.schema import SearchOptions
from ebsc_core.curation import outliers
from ebsc_core.curation.outliers import find_outliers, isolation
from ebsc_core.data.features.rows import HeldRows, unit_rows
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.errors import ConfigError

QUICK = ("--coefficients", "knn", "--n-clusters", "10", "--out", "run")


def listed(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_foreign_images_come_first(ebsc, tmp_path: Path) -> None:
    numbers = np.random.default_rng(0)
    digits = load_digits().images[:600] / 16
    foreign = numbers.permutation(60)[:6]
    for place in foreign:  # the same digits, upside down in their grey values, with stripes
        digits[place] = (1 - digits[place]) * (np.arange(8) % 2)
    np.savez(tmp_path / "d.npz", images=digits)
    run = ("run", "--data", "d.npz", "--backbone", "identity", "--epochs", "0", *QUICK)
    assert ebsc(*run).code == 0
    done = ebsc("outliers", "run", "--top", "10", "-o", "o.csv")
    assert done.code == 0, done.err
    lines = listed(tmp_path / "o.csv")
    assert len(lines) == 10
    assert {int(line["image"]) for line in lines[:6]} == set(foreign.tolist())
    assert "times as far from its neighbours" in lines[0]["why"]
    scores = [float(line["score"]) for line in lines]
    assert scores == sorted(scores, reverse=True)
    assert lines[0]["why"] in done.out


def test_an_image_between_clusters_is_told_to_be_there(ebsc, tmp_path: Path) -> None:
    numbers = np.random.default_rng(0)
    rows = np.repeat(np.eye(3, 12), 40, axis=0) + 0.05 * numbers.normal(size=(120, 12))
    rows[0] = np.arange(12) < 3  # as near to each of the three
    np.save(tmp_path / "f.npy", rows.astype(np.float32))
    assert ebsc("cluster", "f.npy", "--coefficients", "knn", "--n-clusters", "3", "--out", "run").code == 0
    assert ebsc("outliers", "run", "--top", "1", "-o", "o.csv").code == 0
    (first,) = listed(tmp_path / "o.csv")
    assert first["image"] == "0"
    assert first["other"] != first["cluster"]
    assert float(first["own_share"]) + float(first["other_share"]) <= 1.0001
    assert "name" not in first

    assert ebsc("name", "run", first["other"], "herbs").code == 0
    assert ebsc("name", "run", first["cluster"], "trees").code == 0
    done = ebsc("outliers", "run", "--top", "1", "-o", "o.csv")
    (first,) = listed(tmp_path / "o.csv")
    assert first["name"] == "trees"
    assert "in cluster herbs" in first["why"]
    assert f"{first['cluster']} trees" in done.out


def test_copies_of_one_image_do_not_change_who_is_an_outlier(ebsc, tmp_path: Path) -> None:
    """Where all neighbours of most images are copies, every other image would seem infinitely far away."""
    rows = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    np.save(tmp_path / "few.npy", rows)
    np.save(tmp_path / "many.npy", np.concatenate([rows, np.repeat(rows[5:6], 60, axis=0)]))
    found = []
    for name in ("few", "many"):
        made = ("--coefficients", "knn", "--n-clusters", "3", "--out", name)
        assert ebsc("cluster", f"{name}.npy", *made).code == 0
        assert ebsc("outliers", name, "--top", "100", "-o", f"{name}.csv").code == 0
        found.append({line["image"]: line["score"] for line in listed(tmp_path / f"{name}.csv")})
    few, many = found
    assert {image: many[image] for image in few} == few
    assert {many[str(image)] for image in range(40, 100)} == {few["5"]}


def test_a_mistake_is_one_line(ebsc, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32))
    assert ebsc("cluster", "f.npy", "--coefficients", "knn", "--n-clusters", "2", "--out", "run").code == 0
    done = ebsc("outliers", "run", "--top", "0")
    assert done.code == 2
    assert "Invalid value for '--top'" in done.err
    with pytest.raises(ConfigError, match="`top` is 0; give a number from 1"):
        find_outliers(SavedRun(tmp_path / "run"), 0)
    refused = ebsc("outliers", "run", "-o", "run/assignments.csv")
    assert refused.code == 2
    assert "is read here and would be lost" in refused.err


def test_neighbours_that_a_search_has_not_found_count_for_nothing(monkeypatch) -> None:
    """Their places are 0, whose row may be far from all others."""
    none = -torch.inf
    scores = torch.tensor([[0.0, -0.5], [0.9, none], [0.9, 0.8], [none, none]])
    found = Found(scores, torch.tensor([[1, 2], [2, 0], [1, 0], [0, 0]]), torch.zeros(4, 1))
    monkeypatch.setattr(outliers, "nearest", lambda *_: found)
    distance, relative = isolation(HeldRows(torch.eye(4)), SearchOptions(), 0)
    apart = distance / distance[3] * 2  # of the last row, both are opposite
    expected = [apart[[1, 2]].mean(), apart[2], apart[[1, 0]].mean(), apart[3]]
    assert np.allclose(relative, apart / expected)


@settings(max_examples=20)
@given(n=st.integers(2, 60), copies=st.integers(0, 30), seed=st.integers(0, 100))
def test_the_ratios_are_finite_and_those_of_the_definition(n: int, copies: int, seed: int) -> None:
    drawn = torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))
    rows = unit_rows(torch.cat([drawn, drawn[:1].expand(copies, -1)]))
    distance, relative = isolation(HeldRows(rows), SearchOptions(), 0)
    assert np.isfinite(distance).all()
    assert np.isfinite(relative).all()
    k = min(20, len(rows) - 1)
    apart = torch.cdist(rows.double(), rows.double()).fill_diagonal_(torch.inf).topk(k, largest=False)
    means = apart.values.mean(dim=1).numpy()
    if not copies:
        assert np.allclose(distance, means / np.median(means), rtol=1e-3)
        assert np.allclose(relative, means / means[apart.indices.numpy()].mean(axis=1), rtol=1e-3)

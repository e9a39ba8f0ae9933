"""Rows take another form than the model prefers where this keeps far more neighbours together."""

from __future__ import annotations

import json
import tomllib

import numpy as np
import pytest

from ebsc_core.clustering.comparison import Rival, RivalComparison
from ebsc_core.runs.clustering_stage import ClusteringStage


def misled(n: int = 1000) -> dict[str, np.ndarray]:
    """Return rows of five classes, and in a hundred faint columns a plane that says nothing of them."""
    draws = np.random.default_rng(0)
    labels = draws.integers(0, 5, n)
    classes = np.linalg.qr(draws.normal(size=(40, 40))).Q[labels] + 0.3 * draws.normal(size=(n, 40))
    plane = 0.2 * np.tanh(draws.uniform(-1, 1, (n, 2)) @ draws.normal(size=(2, 100)))
    return {"features": np.hstack([classes, plane]).astype(np.float32), "labels": labels}


def test_rows_take_another_form_if_it_keeps_far_more_neighbours_together(ebsc, tmp_path, monkeypatch):
    monkeypatch.setattr("ebsc_core.clustering.comparison.LEAST_GAIN", 0.005)
    np.savez(tmp_path / "rows.npz", **misled())
    done = ebsc("cluster", "rows.npz", "--out", "auto")
    assert done.code == 0, done.err
    assert "energy on neighbour-whitened features" in done.out
    assert "plain rows are taken: their clusters keep " in done.out
    assert tomllib.loads((tmp_path / "auto/run.toml").read_text())["whiten"] is False
    assert ebsc("cluster", "rows.npz", "--set", "whiten=false", "--out", "told").code == 0
    assert ebsc("run", "--config", "auto/run.toml", "--out", "again").code == 0
    auto, told, again = (
        (tmp_path / name / "assignments.csv").read_bytes() for name in ("auto", "told", "again")
    )
    assert auto == told == again
    assert ebsc("predict", "auto", "rows.npz", "-o", "new.csv").code == 0
    asked = ebsc("cluster", "rows.npz", "--set", "whiten=neighbors", "--out", "asked")
    assert "are taken" not in asked.out
    assert "the untrained energy on plain rows keeps " in asked.err
    assert "try another --coefficients or another --set whiten" in asked.err
    better, worse = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("auto", "asked"))
    assert better["comparison"]["neighbors_kept"] > worse["comparison"]["neighbors_kept"]
    assert better["scores"]["acc"] > worse["scores"]["acc"]


def test_the_form_stays_if_the_whole_run_does_not_bear_out_the_sample(ebsc, tmp_path, monkeypatch):
    np.savez(tmp_path / "rows.npz", **misled(300))
    found = [
        RivalComparison(
            300, 0.5, (Rival("k-means", 0.3, 0.95), Rival("the untrained energy on plain rows", 0.3, 0.9))
        ),
        RivalComparison(
            300, 0.4, (Rival("energy on neighbour-whitened rows, as first clustered", 0.3, 0.5),)
        ),
    ]
    monkeypatch.setattr(ClusteringStage, "_compare", lambda *_: found.pop(0))
    done = ebsc("cluster", "rows.npz", "--out", "run")
    assert not found
    assert "are taken" not in done.out
    assert "k-means keeps 95% of the nearest neighbours together" in done.err
    assert tomllib.loads((tmp_path / "run/run.toml").read_text())["whiten"] == "neighbors"


@pytest.mark.parametrize("given", [("--set", "refine.steps=2"), ("--clusterer", "KMeans")])
def test_where_the_form_is_not_all_that_differs_it_stays(ebsc, tmp_path, monkeypatch, given):
    """A model learns from the rows, or no model decides about the clusters."""
    monkeypatch.setattr("ebsc_core.clustering.comparison.LEAST_GAIN", -1.0)
    monkeypatch.setattr(ClusteringStage, "_in_form", lambda *_: pytest.fail("it clusters again"))
    np.savez(tmp_path / "rows.npz", **misled(300))
    done = ebsc("cluster", "rows.npz", *given, "--out", "run")
    assert done.code == 0
    assert "keeps " in done.err
    assert tomllib.loads((tmp_path / "run/run.toml").read_text())["whiten"] == "neighbors"


@pytest.mark.slow
def test_whitened_neighbours_do_not_mislead_on_mnist(ebsc, tmp_path, data_dir):
    pixels = ("--data", data_dir / "mnist.npz", "--limit", "3000", "--backbone", "identity")
    done = ebsc("run", *pixels, "--epochs", "0", "--out", "run")
    assert "plain rows are taken" in done.out
    assert json.loads((tmp_path / "run/metrics.json").read_text())["scores"]["acc"] > 0.65

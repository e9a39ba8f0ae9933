"""What a run has recorded: whatever it is, it is read or refused in one line."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ebsc_core.config.loading import write_toml
from ebsc_core.data.images.in_memory import ImageSet
from ebsc_core.plugins.registry import Registry
from ebsc_core.report.page import Page
from ebsc_core.runs.predict import Predictor
from ebsc_core.runs.store.compare import compare
from ebsc_core.runs.store.listing import list_runs
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.errors import EbscError

N = 60
EPOCH = {"stage": "joint", "loss": 0.5, "effective_rank": 3.0, "joint_error": 0.1}
CANDIDATE = {"k": 9, "score": 0.5, "stability": 0.5, "eigengap": 0.1}
MORE = {
    "training": [EPOCH | {"stage": "warm-up", "joint_error": None}, EPOCH, EPOCH],
    "n_clusters": {"chosen": 9, "candidates": [CANDIDATE, CANDIDATE | {"k": 10}]},
    "warnings": ["it was cold"],
    "features_cost": {"seconds": {"training": 12.5, "features": 0.5}, "peak_memory_mib": None},
    "dictionary_size": None,
}
HOSTILE = [
    "a word",
    "",
    None,
    True,
    -1,
    0.5,
    float("nan"),
    float("-inf"),
    1e308,
    10**18,
    10**400,
    [],
    {},
    [["x"]],
    {"a": {"b": "c"}},
    "\udc80\x1b[31m",
]


@pytest.fixture
def run(ebsc, tmp_path: Path) -> Path:
    """A run without a manifest, whose metrics have everything that any run has."""
    flags = ("--backbone", "identity", "--epochs", "0", "--limit", N, "--set", "refine.steps=2")
    assert ebsc("run", *flags, "--out", "run").code == 0
    (tmp_path / "run/manifest").unlink()
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    (tmp_path / "run/metrics.json").write_text(json.dumps(metrics | MORE))
    return tmp_path / "run"


def places(tree: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of every value below a tree."""
    if path:
        yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def changed(tree: Any, path: tuple, value: Any) -> Any:
    tree = copy.deepcopy(tree)
    below = tree
    for key in path[:-1]:
        below = below[key]
    below[path[-1]] = value
    return tree


def report(run: Path) -> None:
    Page(SavedRun(run), None).html()


def comparison(run: Path) -> None:
    json.dumps(compare([SavedRun(run), SavedRun(run)]).record(), default=str)


def prediction(run: Path) -> None:
    predictor = Predictor(SavedRun(run), Registry(), torch.device("cpu"))
    new = ImageSet("new", torch.zeros(2, 1, 8, 8, dtype=torch.uint8), ["a", "b"])
    list(predictor.extract(predictor.convert(new)))


def refused_or_right(run: Path, *uses: Callable[[Path], None]) -> bool:
    """Whether all that reads a run can use it; it may refuse it, and any other error is raised."""
    json.dumps([one.record() for one in list_runs(run.parent)])
    refusals = []
    for use in uses:
        try:
            use(run)
        except EbscError as error:
            refusals.append(str(error))
    assert all("\n" not in text for text in refusals)
    return not refusals


def test_metrics_of_any_shape_are_refused_or_right(run: Path) -> None:
    file, generator = run / "metrics.json", np.random.default_rng(0)
    whole = json.loads(file.read_text())
    assert refused_or_right(run, report, comparison)
    everywhere = list(places(whole))[::2]
    tried = [(path, HOSTILE[generator.integers(len(HOSTILE))]) for path in everywhere]
    tried += [(("label_free", "silhouette"), value) for value in HOSTILE]
    refused = 0
    for path, value in tried:
        file.write_text(json.dumps(changed(whole, path, value)))
        refused += not refused_or_right(run, report, comparison)
    assert refused > len(tried) / 3


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"3", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000, b"NaN"],
)
def test_metrics_that_are_none_are_refused(run: Path, content: bytes) -> None:
    (run / "metrics.json").write_bytes(content)
    assert not refused_or_right(run, report)
    assert not refused_or_right(run, comparison)
    (listed,) = list_runs(run)
    assert listed.state == "damaged"
    assert str(run / "metrics.json") in listed.problem


def test_a_configuration_of_any_shape_is_refused_or_right(run: Path) -> None:
    whole, generator = SavedRun(run).tables, np.random.default_rng(0)
    for path in list(places(whole))[::3]:
        value = HOSTILE[generator.integers(len(HOSTILE))]
        if not isinstance(value, str | float | list | dict) or value == 1e308:
            value = 10**12
        write_toml(run / "run.toml", changed(whole, path, value))
        refused_or_right(run, report, prediction)


@pytest.mark.parametrize(("name", "value"), [("n_clusters", 10**12), ("top_k", 10**12)])
def test_numbers_that_no_images_could_have_are_refused(run: Path, name: str, value: int) -> None:
    write_toml(run / "run.toml", SavedRun(run).tables | {name: value})
    with pytest.raises(EbscError, match=f"{name} is {value}"):
        _ = SavedRun(run).assignments


def test_times_and_sides_that_cannot_be_are_refused(run: Path) -> None:
    tables = SavedRun(run).tables
    for change in (
        {"created": "0001-01-01T00:00:00+23:59"},
        {"created": 3},
        {"images": tables["provenance"]["images"] | {"height": 10**9}},
        {"images": tables["provenance"]["images"] | {"mean": "x"}},
        {"parts": ["x"]},
    ):
        write_toml(run / "run.toml", tables | {"provenance": tables["provenance"] | change})
        with pytest.raises(EbscError, match=r"run\.toml is damaged"):
            _ = SavedRun(run).provenance
        assert list_runs(run)[0].state == "damaged"

"""What a row has resolved otherwise than its baseline: found in real runs, and said under the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ebsc_core.benchmark.cell import _outcome
from ebsc_core.benchmark.resolved import Difference, differences, recorded
from ebsc_core.benchmark.results import Results
from ebsc_core.benchmark.suite import Suite
from ebsc_core.benchmark.table import markdown

MakeSuite = Callable[..., Suite]

SUITE = """title = "T"
seeds = [0]
baseline = "knn"
[settings]
train.epochs = 0
backbone.name = "identity"
[data.digits]
data = {name = "digits", limit = 100}
[rows.knn]
coefficients.name = "knn"
[rows.energy]
coefficients.name = "energy"
[rows.equal]
coefficients.name = "energy"
whiten = false
affinity.form = "symmetrize"
"""


def test_another_model_changes_more_than_the_model_and_a_row_can_keep_it_equal(
    suite: MakeSuite, tmp_path: Path
) -> None:
    chosen = suite(SUITE)
    records = [(cell, _outcome(cell.settings, tmp_path / "key.json")) for cell in chosen.cells()]
    text = markdown(Results(chosen, "source", records))
    (line,) = [line for line in text.splitlines() if line.startswith("- ")]
    assert line.startswith("- energy: affinity.form is unweighted (in knn symmetrize)")
    assert "whiten is neighbors (in knn false)" in line
    assert "refine" not in line  # neither has trained on the features
    assert text.index("| energy |") < text.index(line) < text.index("## Commands")
    old = [(cell, {k: v for k, v in record.items() if k != "resolved"}) for cell, record in records]
    assert "Resolved settings" not in markdown(Results(chosen, "source", old))


def test_what_a_row_names_is_no_surprise() -> None:
    row, baseline = {0: {"whiten": True, "top_k": 5}}, {0: {"whiten": False, "top_k": 3}}
    assert differences(row, baseline, {"whiten": True}) == [Difference("top_k", "5", "3", ())]
    assert differences(row, {1: baseline[0]}, {}) == []


def test_what_differs_with_some_seeds_only_says_so() -> None:
    plain = {"whiten": False}
    row: dict[int, dict[str, Any]] = {0: {"whiten": "neighbors"}, 1: plain, 2: {"whiten": True}}
    baseline = {0: plain, 1: plain, 2: plain}
    assert differences(row, baseline, {}) == [
        Difference("whiten", "neighbors", "false", (0,)),
        Difference("whiten", "true", "false", (2,)),
    ]


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ({"training": [], "seconds": {}}, {"top_k"}),
        ({"training": [{}], "seconds": {}}, {"top_k", "train"}),
        ({"training": [], "seconds": {"refine coefficients": 1.0}}, {"top_k", "refine"}),
    ],
)
def test_only_what_took_effect_is_recorded(metrics: Mapping[str, Any], told: set[str]) -> None:
    tables = {"top_k": 5, "train": {"epochs": 2}, "refine": {"steps": 9}, "data": {"name": "/home/me"}}
    assert recorded(tables, metrics).keys() == told


def test_a_table_without_effect_is_one_difference() -> None:
    row, baseline = {0: {"train": {"epochs": 2, "lr": 0.1}}}, {0: dict[str, Any]()}
    assert differences(row, baseline, {}) == [Difference("train", "in use", "not in use", ())]

"""The command printed for a cell, read by a shell and by ``ebsc run``, is the cell."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebsc_cli.app import main
from ebsc_core.benchmark.suite import Cell, Suite
from ebsc_core.benchmark.table import command
from ebsc_core.config.schema import RunConfig

MakeSuite = Callable[..., Suite]
Understood = Callable[[Cell], RunConfig]


class Caught(BaseException):
    """What ``ebsc run`` was about to do."""


@pytest.fixture
def understood(shell_words: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch) -> Understood:
    """The configuration that ``ebsc run`` gets from the command printed for a cell."""

    def catch(config: RunConfig, *others: object, **more: object) -> None:
        raise Caught(config)

    monkeypatch.setattr("ebsc_core.runs.run.run", catch)
    monkeypatch.setattr("ebsc_core.runs.plan.check_names", lambda *_: None)  # the data is nowhere

    def read(cell: Cell) -> RunConfig:
        line = command(cell)
        assert line.startswith("ebsc run ")
        assert "\n" not in line
        monkeypatch.setattr(sys, "argv", ["ebsc", *shell_words(line)])
        with pytest.raises(Caught) as caught:
            main()
        return caught.value.args[0]

    return read


def cell_of(tree: dict[str, Any]) -> Cell:
    return Cell("row", "column", 3, tree | {"seed": 3})


CASES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "all that have a flag": {
        "data": {"name": "digits", "limit": 200},
        "backbone": {"name": "identity"},
        "objective": {"name": "byol"},
        "coefficients": {"name": "knn"},
        "clusterer": {"name": "KMeans"},
        "n_clusters": 4,
        "train": {"epochs": 0},
    },
    "floats": {"train": {"lr": 1e-5, "weight_decay": 0.1}, "test_share": 0.25},
    "numbers of another type": {"train": {"epochs": 5.0}, "n_clusters": "4", "data": {"limit": True}},
    "booleans": {"data": {"skip_bad_images": True}, "backbone": {"pretrained": False}},
    "strings like numbers": {
        "objective": {"a": "3", "b": "1e-4", "c": "true", "d": "inf", "e": "2020-01-01"}
    },
    "strings like tables": {"objective": {"a": "[1,  2]", "b": "{x = 1}", "c": '"quoted"', "d": "a = b"}},
    "spaces": {
        "objective": {"a": " ", "b": "  3", "c": "x  y", "d": "3 ", "e": "\t"},
        "data": {"name": "a  b.npz"},
    },
    "lists": {
        "backbone": {"a": [1, 2], "b": ["x  y", "3"], "c": [], "d": [[1.5], [True]], "e": list(range(99))}
    },
    "tables": {"clusterer": {"metric_params": {"p": 3, "deep": {"er": "x"}}, "none": {}}, "views": {}},
    "more lines": {"objective": {"a": "one\ntwo", "b": "\r\n", "c": "\u2028\x85"}, "data": {"name": "a\nb"}},
    "quotes": {
        "data": {"name": 'it\'s "his".npz'},
        "objective": {"a": "`id`", "b": "$(id)", "c": "!x", "d": "\\"},
    },
    "dashes": {"data": {"name": "-x.npz"}, "backbone": {"name": "--help"}, "objective": {"a": "-"}},
    "dollars elsewhere": {"objective": {"a": "$HOME", "b": "${HOME}"}, "backbone": {"name": "$HOME"}},
    "infinity": {"clusterer": {"max_eps": float("inf"), "x": float("-inf")}},
    "other letters": {"data": {"name": "Ångström ü 数字.npz"}},
}


@pytest.mark.parametrize("case", CASES)
def test_is_the_cell(understood: Understood, case: str) -> None:
    cell = cell_of(CASES[case])
    assert understood(cell) == cell.config


PATHS = {
    "a variable": "$HERE/a.npz",
    "braces": "${HERE}/a.npz",
    "spaces around it": "my $HERE/the data.npz",
    "quotes beside it": '$HERE/it\'s "here".npz',
    "a backslash": "$HERE/a\\b.npz",
    "an exclamation mark": "$HERE/a!b.npz",
    "a backtick": "$HERE/`id`.npz",
    "another dollar": "$HERE/cost$/$(id).npz",
    "two": "$HERE$HERE.npz",
}


@pytest.mark.parametrize("case", PATHS)
def test_environment_variables_of_paths_are_left_to_the_shell(
    understood: Understood, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setenv("HERE", "/some where/it's")
    cell = cell_of({"data": {"name": PATHS[case], "root": PATHS[case]}})
    assert cell.config.data.name == PATHS[case].replace("${HERE}", "$HERE").replace(
        "$HERE", "/some where/it's"
    )
    assert "HERE" in command(cell)
    assert understood(cell) == cell.config


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
FINITE = st.floats(allow_nan=False)
VALUES = st.recursive(
    st.booleans() | st.integers() | FINITE | TEXT, lambda inner: st.lists(inner, max_size=3)
)


@given(name=TEXT, option=VALUES, limit=st.integers(1), rate=st.floats(0, 1, exclude_min=True))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_is_any_cell(understood: Understood, name: str, option: Any, limit: int, rate: float) -> None:
    tree = {
        "data": {"name": name.replace("$", ""), "limit": limit} if name.strip("$") else {},
        "objective": {"name": name, "option": option, "text": name},
        "train": {"lr": rate},
        "clusterer": {"deep": {"er": option}},
    }
    cell = cell_of(tree)
    assert understood(cell) == cell.config


def test_of_a_suite_is_the_row_s_with_the_command_line_s_changes(
    understood: Understood, suite: MakeSuite
) -> None:
    tree = {
        "title": "T",
        "seeds": [7],
        "protocol": "train-test",
        "settings": {"train": {"epochs": 0}, "backbone": {"name": "resnet10t", "pretrained": True}},
        "data": {"d": {"data": {"name": "digits"}, "n_clusters": 10}},
        "rows": {"r": {"backbone": {"name": "identity"}, "affinity": {"n_neighbors": 5}}},
    }
    (cell,) = suite(tomli_w.dumps(tree), ["affinity.n_neighbors=4", "data.limit=99"]).cells()
    found = understood(cell)
    assert found == cell.config
    assert (found.seed, found.protocol, found.affinity.n_neighbors, found.data.limit) == (
        7,
        "train-test",
        4,
        99,
    )
    assert found.backbone.options == {}


def test_says_how_many_threads_it_was_run_with() -> None:
    assert command(cell_of({}), threads=4).startswith("OMP_NUM_THREADS=4 ebsc run ")

"""``ebsc benchmark`` as it is typed: what it prints, and its exit status."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

StandIn = Callable[..., Path]


@pytest.fixture
def benchmark(ebsc: Any, two_rows: str, tmp_path: Path) -> Any:
    """Calls ``ebsc benchmark`` with a suite in the current folder."""
    suite = two_rows.replace('"T"', '"Some *rows*"').replace("[0, 1]", "[0]")
    (tmp_path / "my suite.toml").write_text(suite)
    return lambda *arguments: ebsc("benchmark", "my suite.toml", *arguments)


def test_prints_each_cell_and_the_table_and_where_it_is(benchmark: Any, stand_in: StandIn) -> None:
    stand_in()
    done = benchmark()
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "[1/2] knn · digits · seed 0: ACC 50.0 NMI 25.0 ARI 12.5, 2 s, about 2 s left"
    assert "Some *rows*" in done.out
    assert [line.split()[:4] for line in lines if line.startswith(" knn")] == [
        ["knn", "50.0", "25.0", "12.5"]
    ]
    folder = "runs/benchmark-my suite"
    assert lines[-1] == f"table and commands: {folder}/table.md, {folder}/table.html"
    assert "ebsc run" not in done.out
    assert "--coefficients knn" in Path(folder, "table.md").read_text()


def test_quiet_prints_the_table_only(benchmark: Any, stand_in: StandIn) -> None:
    stand_in()
    done = benchmark("-q")
    assert "seed 0:" not in done.out
    assert "ACC" in done.out


def test_the_table_is_as_wide_as_is_said(
    benchmark: Any, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in()
    monkeypatch.setenv("COLUMNS", "100")
    *table, last = benchmark("-q").out.splitlines()
    assert max(map(len, table)) <= 100
    assert last.endswith("table.html")


def test_an_empty_cache_is_refused_before_anything_runs(benchmark: Any, stand_in: StandIn) -> None:
    stand_in()
    done = benchmark("--cache", "")
    assert done.code == 2
    assert done.err.startswith("ebsc: error: option 'cache': it is empty")
    assert not Path("runs").exists()


def test_a_reason_names_settings_as_a_suite_does(benchmark: Any, stand_in: StandIn) -> None:
    stand_in("if part == 'knn': outcome = {'failed': 'say how many with `n_clusters`; lower `top_k`'}")
    assert benchmark().err.endswith("failed: say how many with 'n_clusters'; lower 'top_k'\n")


def test_a_failure_is_status_1_and_its_reason_is_printed_whole(benchmark: Any, stand_in: StandIn) -> None:
    reason = "it went wrong " * 20 + "here"
    stand_in(f"if part == 'knn': outcome = {{'failed': {reason!r}}}")
    done = benchmark("--out", "out [1]")
    assert done.code == 1
    assert done.err == f"warning: [1/2] knn · digits · seed 0 failed: {reason}\n"
    assert reason in " ".join(done.out.split())
    assert done.out.splitlines()[-1] == "table and commands: out [1]/table.md, out [1]/table.html"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--jobs", "0"), "--jobs"),
        (("--jobs", "two"), "--jobs"),
        (("--baseline", "x"), "baseline 'x' is no row; rows are knn, energy"),
        (("--set", "coefficients.name=enrgy"), "--set: row 'knn': unknown coefficient model 'enrgy'"),
        (("--set", "top_k"), "--set 'top_k' is not of the form section.option=value"),
        (("--set", "train=3"), "--set: row 'knn': 'train' is a section, not an option"),
        (("--out", "my suite.toml"), "cannot create my suite.toml/cells: Not a directory"),
        (("--row", "knn"), "--row"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    benchmark: Any, stand_in: StandIn, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    log = stand_in()
    done = benchmark(*arguments)
    assert done.code == 2
    assert len(done.err.splitlines()) == 1, done.err
    assert said in done.err
    assert log.read_text() == ""
    assert not (tmp_path / "runs").exists()


def test_a_folder_of_other_files_is_not_written_to(benchmark: Any, stand_in: StandIn, tmp_path: Path) -> None:
    log = stand_in()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/table.md").write_text("not yours")
    done = benchmark("--out", "mine")
    assert (done.code, done.err) == (2, "ebsc: error: mine already holds files; choose another --out\n")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["table.md"]
    assert log.read_text() == ""


@pytest.mark.parametrize("name", ["absent.toml", "."])
def test_no_suite(ebsc: Any, name: str) -> None:
    done = ebsc("benchmark", name)
    assert done.code == 2
    assert f"cannot read {name}" in done.err


def test_an_interrupt_is_status_130(
    benchmark: Any, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    stand_in()
    monkeypatch.setattr("ebsc_core.benchmark.runner.Runner._collect", interrupt)
    done = benchmark()
    assert done.code == 130
    assert done.err == "ebsc: interrupted; finished cells are kept, the same command goes on\n"


def test_changes_and_the_cache_reach_the_cells(benchmark: Any, stand_in: StandIn, tmp_path: Path) -> None:
    stand_in(f"Path({str(tmp_path / 'seen.txt')!r}).write_text(json.dumps(config))")
    assert benchmark("--set", "top_k=7", "--cache", "kept").code == 0
    seen = (tmp_path / "seen.txt").read_text()
    assert '"top_k": 7' in seen
    assert '"cache": "kept"' in seen
    assert "top_k=7" in Path("runs/benchmark-my suite/table.md").read_text()


def test_what_lies_in_the_folder_is_not_imported(benchmark: Any, stand_in: StandIn, tmp_path: Path) -> None:
    """The stand-in gets the command line of a real cell: its first argument keeps the folder off the path."""
    stand_in("outcome['metrics']['warnings'] = sys.argv[1:]")
    assert benchmark().code == 0
    assert os.path.exists("runs/benchmark-my suite/table.md")
    assert "-P" in Path("runs/benchmark-my suite/table.md").read_text()

"""Mean and spread over seeds, and the file that keeps it all."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebsc_core.benchmark.results import Results, Spread, set_aside, source_digest, write
from ebsc_core.benchmark.table import html, markdown
from ebsc_core.plugins.hookspecs import ENTRY_POINT_GROUP
from ebsc_core.plugins.installed import Provider
from ebsc_core.plugins.registry import Registry

MakeResults = Callable[..., Results]

SUITE = """title = "T"
seeds = [0, 1, 2]
[data.a]
[data.b]
[rows.one]
[rows.two]
"""
RENDERINGS = {"table.md": markdown, "table.html": html}


@given(st.lists(st.floats(0, 100), min_size=2, max_size=6))
def test_spread_is_mean_and_sample_deviation(values: list[float]) -> None:
    spread = Spread.of(values)
    assert spread.mean == pytest.approx(np.mean(values))
    assert spread.std == pytest.approx(np.std(values, ddof=1), abs=1e-9)


def test_one_value_has_no_spread() -> None:
    assert Spread.of([3.0]) == Spread(3.0, None)


class TestEntries:
    def test_scores_are_percent_over_the_seeds(self, results: MakeResults) -> None:
        entry = results(SUITE, lambda row, column, seed: [0.5, 0.7, 0.9][seed]).entries["two", "b"]
        assert entry.scores["acc"].mean == pytest.approx(70)
        assert entry.scores["acc"].std == pytest.approx(20)
        assert entry.scores["nmi"].std == pytest.approx(10)

    def test_each_is_of_its_row_and_column(self, results: MakeResults) -> None:
        table = {("one", "a"): 0.1, ("two", "a"): 0.2, ("one", "b"): 0.3, ("two", "b"): 0.4}
        found = results(SUITE, lambda row, column, seed: table[row, column]).entries
        assert {key: entry.scores["acc"].mean / 100 for key, entry in found.items()} == pytest.approx(table)

    def test_the_cost_of_features_is_that_of_their_making(self, results: MakeResults) -> None:
        entry = results(SUITE, lambda row, column, seed: 0.5).entries["one", "a"]
        assert entry.feature_seconds is not None
        assert entry.seconds is not None
        assert entry.feature_seconds.mean == 8.0  # training and features, whoever made them
        assert entry.seconds.mean == 2.0  # what comes after, its own features not counted again
        assert entry.peak_memory_mib == 400

    @pytest.mark.parametrize("stage", ["read data", "read features", "scores"])
    def test_reading_and_scoring_are_not_counted(
        self, results: MakeResults, metrics: Any, stage: str
    ) -> None:
        figures = metrics(seconds={stage: 50.0, "coefficients": 2.0})
        entry = results(SUITE, lambda row, column, seed: figures).entries["one", "a"]
        assert entry.seconds is not None
        assert entry.seconds.mean == 2.0

    def test_a_seed_that_failed_leaves_no_figures_and_says_why(self, results: MakeResults) -> None:
        found = results(SUITE, lambda row, column, seed: "no memory" if (row, seed) == ("one", 1) else 0.5)
        assert found.entries["one", "a"].failed == ["seed 1: no memory"]
        assert found.entries["one", "a"].scores == {}
        assert found.entries["two", "a"].scores["acc"].mean == 50

    def test_without_labels_there_are_costs_but_no_scores(self, results: MakeResults, metrics: Any) -> None:
        entry = results(SUITE, lambda row, column, seed: metrics(None)).entries["one", "a"]
        assert entry.scores == {}
        assert entry.failed == []
        assert entry.seconds is not None

    def test_the_vote_of_neighbours_is_there_if_all_cells_have_it(
        self, results: MakeResults, metrics: Any
    ) -> None:
        def voted(row: str, column: str, seed: int) -> Any:
            plain = metrics(0.5)
            more = {} if (row, seed) == ("two", 2) else {"knn_accuracy": (0.7, 0.8, 0.9)[seed]}
            return plain | {"scores": plain["scores"] | more}

        found = results(SUITE, voted)
        assert found.entries["two", "a"].knn_accuracy is None
        vote = found.entries["one", "a"].knn_accuracy
        assert vote is not None
        assert vote.mean == pytest.approx(80)
        text = markdown(found)
        assert "| k-NN |" in text
        assert "| 80.0 ± 10.0 |" in text
        assert "k-NN" not in markdown(results(SUITE, lambda row, column, seed: 0.5))

    def test_warnings_are_named_once(self, results: MakeResults, metrics: Any) -> None:
        found = results(SUITE, lambda row, column, seed: metrics(warnings=["cold", f"seed {seed % 2}"]))
        assert found.entries["one", "a"].warnings == ["cold", "seed 0", "seed 1"]


class TestResultsFile:
    def test_holds_every_cell_and_the_table(self, results: MakeResults, tmp_path: Path) -> None:
        write(tmp_path, results(SUITE, lambda row, column, seed: seed / 10), RENDERINGS)
        saved = json.loads((tmp_path / "results.json").read_text())
        assert len(saved["cells"]) == 12
        accuracies = [c["scores"]["acc"] for c in saved["cells"] if (c["row"], c["data"]) == ("one", "b")]
        (entry,) = [e for e in saved["table"] if (e["row"], e["column"]) == ("one", "b")]
        assert entry["scores"]["acc"]["mean"] == pytest.approx(100 * mean(accuracies))
        assert entry["scores"]["acc"]["std"] == pytest.approx(100 * stdev(accuracies))
        assert saved["suite"]["seeds"] == [0, 1, 2]
        assert saved["machine"]["cpus"] >= 1
        assert "torch" in saved["versions"]

    def test_holds_what_json_has_no_word_for(self, results: MakeResults, tmp_path: Path) -> None:
        odd = "clusterer.max_eps = inf\nclusterer.least = nan\nclusterer.day = 2020-01-01\n"
        found = results(SUITE + odd, lambda row, column, seed: 0.5, settings=["clusterer.most=-inf"])
        write(tmp_path, found, RENDERINGS)
        saved = json.loads((tmp_path / "results.json").read_text())
        assert saved["cells"][1]["settings"]["clusterer"] == {
            "max_eps": "inf",
            "least": "nan",
            "day": "2020-01-01",
            "most": "-inf",
        }
        assert set_aside(tmp_path, found) is None

    def test_leaves_nothing_else(self, results: MakeResults, tmp_path: Path) -> None:
        out = tmp_path / "out"
        out.mkdir()
        write(out, results(SUITE, lambda row, column, seed: 0.5), RENDERINGS)
        assert {path.name for path in out.iterdir()} == {"results.json", "table.md", "table.html"}

    def test_a_name_that_is_not_utf_8_is_written(self, results: MakeResults, tmp_path: Path) -> None:
        name = b"/photos/\xff.npz".decode(errors="surrogateescape")
        write(tmp_path, results(SUITE, lambda row, column, seed: f"cannot read {name}"), RENDERINGS)
        assert b"/photos/\xff.npz" in (tmp_path / "table.md").read_bytes()


class TestSetAside:
    """Results of something else are kept, and never mixed with new ones."""

    @pytest.fixture
    def written(self, results: MakeResults, tmp_path: Path) -> Results:
        found = results(SUITE, lambda row, column, seed: 0.5)
        write(tmp_path, found, RENDERINGS)
        return found

    def moved(self, out: Path) -> list[str]:
        return sorted(path.name for path in out.glob("until-*/*"))

    def test_the_same_stay(self, written: Results, tmp_path: Path) -> None:
        assert set_aside(tmp_path, written) is None
        assert self.moved(tmp_path) == []

    def test_another_suite(self, written: Results, results: MakeResults, tmp_path: Path) -> None:
        other = results(SUITE.replace('"T"', '"U"'), lambda row, column, seed: 0.5)
        assert "kept in" in (set_aside(tmp_path, other) or "")
        assert self.moved(tmp_path) == ["results.json", "table.html", "table.md"]
        assert not (tmp_path / "results.json").exists()

    def test_another_change_of_the_command_line(
        self, written: Results, results: MakeResults, tmp_path: Path
    ) -> None:
        other = results(SUITE, lambda row, column, seed: 0.5, settings=["top_k=3"])
        assert set_aside(tmp_path, other)

    def test_another_version(self, written: Results, tmp_path: Path) -> None:
        other = Results(written.suite, "another source", written.records)
        assert set_aside(tmp_path, other)

    @pytest.mark.parametrize(
        "content", [b"", b"[]", b"{}", b"null", b"\xff", b'{"format": 3', b"[" * 100_000, b'{"created": []}']
    )
    def test_damaged_ones(self, written: Results, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "results.json").write_bytes(content)
        assert set_aside(tmp_path, written)
        assert "results.json" in self.moved(tmp_path)

    def test_a_date_of_any_kind_makes_a_folder(self, written: Results, tmp_path: Path) -> None:
        for created in ("../../evil", "x" * 5000, ""):
            (tmp_path / "results.json").write_text(json.dumps({"created": created}))
            assert set_aside(tmp_path, written)
        (tmp_path / "results.json").write_text("{}")
        assert set_aside(tmp_path, written)
        assert len(list(tmp_path.glob("until-*"))) == 4


PLUGIN = """
from ebsc_core import ComponentSpec, hookimpl
@hookimpl
def ebsc_objectives():
    yield ComponentSpec("mine", "A loss.", dict)
"""


class TestSourceDigest:
    def registry(self, module: str, version: str = "1.0") -> Registry:
        found = Registry([(EntryPoint("parts", module, ENTRY_POINT_GROUP), Provider("alpha", version))])
        assert found.failures == []
        return found

    def test_is_the_same_for_the_same(self) -> None:
        assert source_digest(Registry()) == source_digest(Registry())

    @pytest.mark.parametrize("layout", ["alpha_file.py", "alpha_package/__init__.py"])
    def test_changes_with_a_plugin(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
    ) -> None:
        monkeypatch.syspath_prepend(tmp_path)
        file, module = tmp_path / layout, layout.partition("/")[0].removesuffix(".py")
        file.parent.mkdir(exist_ok=True)
        file.write_text(PLUGIN)
        before = source_digest(self.registry(module))
        assert source_digest(self.registry(module, "1.1")) != before
        file.write_text(PLUGIN + "x = 1")
        assert source_digest(self.registry(module)) != before

    def test_changes_with_the_version_of_what_computes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = source_digest(Registry())
        monkeypatch.setattr("ebsc_core.utils.provenance._version", lambda package: "99")
        assert source_digest(Registry()) != before

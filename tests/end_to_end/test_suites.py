"""The suites that are shipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ebsc_core.benchmark.suite import load_suite
from ebsc_core.plugins.registry import Registry

SUITES = sorted((Path(__file__).parents[2] / "benchmarks/suites").glob("*.toml"))


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_every_cell_is_a_run_that_could_be(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EBSC_DATA_DIR", "/data")
    chosen = load_suite(path)
    chosen.check(Registry())
    assert len(chosen.file.seeds) >= 2


@pytest.mark.slow
def test_the_smoke_suite(ebsc: Any, tmp_path: Path) -> None:
    (path,) = (path for path in SUITES if path.stem == "smoke")
    done = ebsc("benchmark", path, "--jobs", "2", "--out", "out")
    assert done.code == 0, done.err
    table = {
        entry["row"]: entry for entry in json.loads((tmp_path / "out/results.json").read_text())["table"]
    }
    for row, entry in table.items():
        assert entry["scores"]["acc"]["mean"] > (90 if "whitened" in row else 30)
        assert entry["scores"]["acc"]["std"] is not None

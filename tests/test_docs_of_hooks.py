"""docs/plugins tells of every hook, and tells the truth."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ebsc_core.plugins import hookspecs
from ebsc_core.plugins.hookspecs import API_VERSION, Hooks, RunHooks
from ebsc_core.plugins.validation import hook_names

DOCS = Path(__file__).resolve().parents[1] / "docs" / "plugins"
LIFECYCLE, OBSERVERS = ((DOCS / f"{page}.md").read_text() for page in ("lifecycle", "observers"))
HOOKS = [(specs, name) for specs in (Hooks, RunHooks) for name in hook_names(specs)]


def signature(specs: type, name: str) -> str:
    """As a reader would write it, e.g. ``ebsc_run_failed(event: RunFailed) -> None``."""
    whole = inspect.signature(getattr(specs, name))
    without_self = whole.replace(parameters=list(whole.parameters.values())[1:])
    return name + str(without_self).replace("'", "")


@pytest.mark.parametrize(("specs", "name"), HOOKS)
def test_the_life_cycle_has_every_hook_with_its_signature(specs: type, name: str) -> None:
    assert signature(specs, name) in LIFECYCLE


@pytest.mark.parametrize("name", hook_names(RunHooks))
def test_observers_are_told_what_the_table_says(name: str) -> None:
    (row,) = [line for line in OBSERVERS.splitlines() if line.startswith(f"| `{signature(RunHooks, name)}`")]
    event = getattr(hookspecs, inspect.signature(getattr(RunHooks, name)).parameters["event"].annotation)
    named = re.findall(r"`(\w+)`", row.split("|")[3])
    assert {field.name for field in dataclasses.fields(event)} == set(named) - {"joint"}


def test_no_hook_is_told_of_that_there_is_not() -> None:
    known = {name for _, name in HOOKS} | {"ebsc_core"}
    assert set(re.findall(r"\bebsc_\w+", LIFECYCLE + OBSERVERS)) <= known


def test_the_version_is_told() -> None:
    assert f"now {API_VERSION}, and records of another" in LIFECYCLE


def test_the_example_works(ebsc: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", OBSERVERS, flags=re.DOTALL)
    info = tmp_path / "site" / "diary-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: diary\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ebsc]\ndiary = diary_of_the_docs\n")
    (tmp_path / "site" / "diary_of_the_docs.py").write_text(example)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "diary_of_the_docs", raising=False)
    tiny = ("--limit", "60", "--epochs", "1", "--backbone", "resnet10t", "--set", "refine.steps=2")
    done = ebsc("run", *tiny, "--observer", "diary", "--out", "mine")
    assert (done.code, done.err) == (0, "")
    lines = (tmp_path / "diary.txt").read_text().splitlines()
    assert [line.split()[:2] for line in lines] == [["mine", "1"], ["mine", "{'acc':"]]

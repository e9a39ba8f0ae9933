from __future__ import annotations

import re
import sys
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import nn

from ebsc_core import ComponentSpec, Options, hookimpl
from ebsc_core.config.schema import ComponentChoice, RunConfig
from ebsc_core.plugins import selection
from ebsc_core.plugins.installed import Provider, installed_entry_points
from ebsc_core.plugins.kinds import REQUIRED
from ebsc_core.plugins.registry import Kind, Registry, SelectedComponent
from ebsc_core.plugins.selection import SOURCE, Choice, choose
from ebsc_core.runs.plan import make_plan
from ebsc_core.runs.resolve import Preferences
from ebsc_core.utils.errors import ComponentError


class Stated:
    """Written for the time before records had preferences."""

    default_top_k = 7
    default_whiten = True


def registry(
    monkeypatch: pytest.MonkeyPatch, factory: Any, kind: Kind = Kind.COEFFICIENTS, **preferences: Any
) -> Registry:
    """Our own components, and one of another distribution: a coefficient model, if nothing else is said."""
    module = ModuleType("theirs")
    spec = ComponentSpec("theirs", "A component.", factory, **preferences)
    vars(module)[kind.hook] = hookimpl(lambda: [spec])
    monkeypatch.setitem(sys.modules, "theirs", module)
    ours = [found for found in installed_entry_points() if found[1].distribution == "ebsc"]
    return Registry([*ours, (EntryPoint("theirs", "theirs", "ebsc"), Provider("acme", "1.0"))])


def chosen(registry: Registry) -> Choice:
    return choose(registry, Kind.COEFFICIENTS, ComponentChoice(name="theirs"))


def test_attributes_of_a_class_still_count_and_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    found = registry(monkeypatch, Stated)
    plan = make_plan(RunConfig.model_validate({"coefficients": {"name": "theirs"}}), found)
    preferences = Preferences.of(plan)
    assert (preferences.top_k, preferences.whiten) == (7, True)
    assert plan.warnings() == [
        "coefficient model 'theirs' of acme 1.0: its class says default_top_k and default_whiten; this "
        "belongs on its record: ComponentSpec(…, top_k=7, whiten=True)"
    ]


def test_the_record_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    choice = chosen(registry(monkeypatch, Stated, top_k=3, whiten=False))
    assert (choice.component.spec.top_k, choice.component.spec.whiten) == (3, False)
    assert choice.warnings == ()


def test_a_function_as_factory_keeps_what_its_record_prefers(monkeypatch: pytest.MonkeyPatch) -> None:
    found = registry(monkeypatch, lambda options, width: Stated(), top_k=3)
    plan = make_plan(RunConfig.model_validate({"coefficients": {"name": "theirs"}}), found)
    assert Preferences.of(plan).top_k == 3
    assert plan.warnings() == []


def written(folder: Path, layout: str, factory: Any) -> Choice:
    """A component whose package or module stands in ``folder``."""
    file = folder / layout
    file.parent.mkdir(exist_ok=True)
    file.write_text("def build(options): return options\n")
    spec = ComponentSpec("theirs", "A component.", factory)
    return Choice(SelectedComponent(Kind.OBJECTIVE, "theirs", spec, Provider("acme", "1.0")), Options())


@pytest.mark.parametrize("layout", ["acme_single.py", "acme_whole/loss.py"])
def test_the_record_of_a_component_changes_with_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = layout.removesuffix(".py").replace("/", ".")
    choice = written(tmp_path, layout, f"{module}:build")
    before = choice.record()
    assert before == choice.record()
    (tmp_path / layout).write_text("def build(options): return None\n")
    after = choice.record()
    assert {name for name in after if after[name] != before[name]} == {SOURCE}


def test_the_package_of_a_factory_that_is_no_text_is_known(tmp_path: Path) -> None:
    for factory in (Stated, partial(Stated), chosen):
        assert written(tmp_path, "x.py", factory).component.package == __name__.partition(".")[0]
    assert written(tmp_path, "x.py", dict).record()[SOURCE]


def test_records_of_our_own_components_have_no_digest_of_source_where_ebsc_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(selection, "IN_WORKING_COPY", False)
    for kind in REQUIRED:
        if kind is not Kind.DATA:
            assert choose(Registry(), kind, ComponentChoice()).record().keys() == {"name", "from", "options"}


def test_in_a_working_copy_our_own_components_depend_on_their_own_modules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[str] = []
    monkeypatch.setattr(selection, "package_digest", lambda module: read.append(module) or "digest")
    package = "ebsc_plugins.objectives"
    for name, modules in {
        "simclr": {f"{package}.simclr"},
        "moco-v3": {f"{package}.moco_v3", f"{package}.momentum", f"{package}.predictive"},
    }.items():
        read.clear()
        assert SOURCE in choose(Registry(), Kind.OBJECTIVE, ComponentChoice(name=name)).record()
        assert set(read) == modules
    for kind, name in ((Kind.BACKBONE, "resnet18"), (Kind.BACKBONE, "pca"), (Kind.COEFFICIENTS, "energy")):
        read.clear()
        choose(Registry(), kind, ComponentChoice(name=name)).record()
        assert read


@pytest.mark.parametrize(("preferred", "rows"), [(None, "features"), ("embeddings", "embeddings")])
def test_an_objective_prefers_rows_on_its_record(
    monkeypatch: pytest.MonkeyPatch, preferred: Any, rows: str
) -> None:
    found = registry(monkeypatch, lambda options, backbone: None, Kind.OBJECTIVE, express=preferred)
    plan = make_plan(RunConfig.model_validate({"objective": {"name": "theirs"}}), found)
    assert Preferences.of(plan).rows == rows


@pytest.mark.parametrize(
    ("kind", "base"),
    [(Kind.BACKBONE, "Backbone"), (Kind.OBJECTIVE, "Objective"), (Kind.COEFFICIENTS, "CoefficientModel")],
)
@pytest.mark.parametrize("made", [None, nn.Linear(2, 2)], ids=["nothing", "another module"])
def test_a_factory_that_returns_something_else_is_named(kind: Kind, base: str, made: Any) -> None:
    spec = ComponentSpec("x", "For a test.", lambda options: made)
    choice = Choice(SelectedComponent(kind, "x", spec, Provider("acme", "1.0")), Options())
    said = (
        f"{kind.words} 'x' of acme 1.0: its factory returned a {type(made).__name__}, not an ebsc_core.{base}"
    )
    with pytest.raises(ComponentError, match=re.escape(said)):
        choice.build()

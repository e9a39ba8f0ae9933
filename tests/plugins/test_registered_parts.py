"""Our own parts, as the registry finds them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ebsc_core import Options
from ebsc_core.plugins.hookspecs import ComponentSpec, Hooks
from ebsc_core.plugins.installed import installed_entry_points
from ebsc_core.plugins.registry import Entry, Kind, Registry, SelectedComponent
from ebsc_core.plugins.validation import former_preferences

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry([found for found in installed_entry_points() if found[1].distribution == "ebsc"])


def test_every_hook_is_a_kind() -> None:
    assert {name for name in vars(Hooks) if name.startswith("ebsc_")} == {kind.hook for kind in Kind}


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_parts(registry: Registry, kind: Kind) -> None:
    assert registry.of(kind)


def test_our_plugins_load(registry: Registry) -> None:
    assert registry.failures == []


def single_parts(registry: Registry) -> Iterator[SelectedComponent]:
    for entry in registry.entries:
        if isinstance(entry.component, ComponentSpec):
            yield registry.find(entry.kind, entry.name)


def family_members(registry: Registry) -> Iterator[SelectedComponent]:
    yield registry.find(Kind.BACKBONE, "resnet50")
    yield from (registry.find(Kind.DATA, name) for name in ("images.zip", "images.npz", str(ROOT)))


def test_every_part_can_be_imported(registry: Registry) -> None:
    for part in single_parts(registry):
        assert callable(part.factory), part.name


def test_every_option_is_described(registry: Registry) -> None:
    for part in (*single_parts(registry), *family_members(registry)):
        assert issubclass(part.options_class, Options), part.name
        for option, field in part.options_class.model_fields.items():
            assert field.description, f"{part.name}: {option}"


def test_no_name_is_used_twice(registry: Registry) -> None:
    def identity(entry: Entry) -> tuple[Kind, str]:
        return entry.kind, entry.name

    assert len(set(map(identity, registry.entries))) == len(registry.entries)


def test_what_our_parts_prefer(registry: Registry) -> None:
    names = ("top_k", "whiten", "express")
    specs = [part.spec for part in single_parts(registry)]
    stated = {s.name: {n: v for n in names if (v := getattr(s, n)) is not None} for s in specs}
    assert {name: preferred for name, preferred in stated.items() if preferred} == {
        "energy": {"whiten": "neighbors"},
        "senet": {"top_k": 1000},
        "elastic-net": {"top_k": 50},
        "omp": {"top_k": 10},
    }


def test_no_class_of_ours_states_what_it_prefers(registry: Registry) -> None:
    for part in single_parts(registry):
        assert not former_preferences(part.kind, part.spec, part.factory), part.name

"""Each planted fault is found by the check that is meant for it, and by no other."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from ebsc_core import ComponentSpec
from ebsc_core.plugins.registry import Kind
from ebsc_core.testing.checks import Result
from ebsc_core.testing.suites import make_suite


def _load(name: str) -> Any:
    """A module beside this one; tests are no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec
    assert spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


objectives, coefficients, others = map(_load, ("faulty_objectives", "faulty_coefficients", "faulty_others"))

PLANTED = [
    (kind, factory, meant)
    for kind, faults in (
        (Kind.OBJECTIVE, objectives.OBJECTIVE_FAULTS),
        (Kind.BACKBONE, objectives.BACKBONE_FAULTS),
        (Kind.COEFFICIENTS, coefficients.COEFFICIENT_FAULTS),
        (Kind.CLUSTERER, others.CLUSTERER_FAULTS),
        (Kind.DATA, others.DATA_FAULTS),
    )
    for factory, meant in faults.items()
]
SOUND = [
    (Kind.OBJECTIVE, objectives.SoundObjective),
    (Kind.BACKBONE, objectives.SoundBackbone),
    (Kind.COEFFICIENTS, coefficients.SoundModel),
    (Kind.COEFFICIENTS, coefficients.SoundLearner),
    (Kind.CLUSTERER, others.SoundClusterer),
    (Kind.DATA, others.SoundData),
]


def failed(kind: Kind, factory: Any) -> dict[str, Result]:
    spec = ComponentSpec("planted", "For a test.", others.opener(factory) if kind is Kind.DATA else factory)
    return {r.check.id: r for r in make_suite(kind, spec).results() if r.status == "failed"}


@pytest.mark.parametrize(("kind", "factory"), SOUND, ids=lambda value: getattr(value, "__name__", ""))
def test_a_sound_part_passes(kind: Kind, factory: Any) -> None:
    assert {check: result.seen for check, result in failed(kind, factory).items()} == {}


@pytest.mark.parametrize(
    ("kind", "factory", "meant"), PLANTED, ids=[f"{f.__name__}-{meant}" for _, f, meant in PLANTED]
)
def test_a_fault_is_found_by_the_check_meant_for_it(kind: Kind, factory: Any, meant: str) -> None:
    found = failed(kind, factory)
    assert {check: result.seen for check, result in found.items()}.keys() == {meant}
    assert found[meant].seen

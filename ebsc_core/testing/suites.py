"""Make the suite of checks of a component, and a pytest test from a suite."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from ebsc_core.plugins.hookspecs import ComponentSpec
from ebsc_core.plugins.registry import Kind
from ebsc_core.testing.checks import Check, Contract, ContractBroken, Suite
from ebsc_core.testing.subject import find_choice
from ebsc_core.utils.errors import ComponentError

MODULES = {
    Kind.DATA: "datasets",
    Kind.BACKBONE: "backbones",
    Kind.OBJECTIVE: "objectives",
    # The module for trainable models adds its checks to the contract of all coefficient models.
    Kind.COEFFICIENTS: "trainable",
    Kind.CLUSTERER: "clusterers",
}

Opened = str | Path | Callable[[], str | Path]


def contract_of(kind: Kind) -> Contract:
    """Return all checks of a kind of component."""
    return import_module(f"ebsc_core.testing.{MODULES[kind]}").contract


def make_suite(
    kind: Kind,
    part: str | ComponentSpec,
    options: Mapping[str, Any] | None = None,
    data: Opened | None = None,
    root: str | Path | None = None,
) -> Suite:
    """Make the suite of a component; the component is loaded when the first check runs."""
    contract = contract_of(kind)

    def find() -> Any:
        opened = str(data() if callable(data) else data) if data is not None else None
        choice = find_choice(kind, part, options, opened)
        return contract.subject(choice, Path(os.path.expanduser(root)) if root else None)

    return Suite(contract, find)


def as_test(suite: Suite, expected_failures: Mapping[str, str] | None = None) -> Callable[[Check], None]:
    """Make a pytest test of every check of a suite, parametrised by the ids of the checks.

    Raises
    ------
    ComponentError
        If an expected failure names an unknown check, or if its reason is missing.
    """
    import pytest

    reasons = _reasons(suite.contract, expected_failures or {})
    parameters = [
        pytest.param(
            check,
            id=check.id,
            marks=[pytest.mark.xfail(reason=reasons[check.id], strict=True, raises=ContractBroken)]
            if check.id in reasons
            else [],
        )
        for check in suite.contract.checks
    ]

    @pytest.mark.parametrize("check", parameters)
    def test_contract(check: Check) -> None:
        __tracebackhide__ = True
        result = suite.result(check)
        if result.status == "not run":
            pytest.skip(result.seen)
        if result.status == "failed":
            name = suite.subject.choice.name
            raise ContractBroken(f"{name}: {check.id}\n{result.explanation()}") from result.error

    return test_contract


def _reasons(contract: Contract, expected: Mapping[str, str]) -> dict[str, str]:
    known = [check.id for check in contract.checks]
    for check, reason in expected.items():
        if check not in known:
            raise ComponentError(
                f"expected_failures: no check of a {contract.kind.words} is called {check!r} "
                f"(there are: {', '.join(known)})"
            )
        if not (isinstance(reason, str) and reason.strip()):
            raise ComponentError(f"expected_failures: say why {check!r} is expected to fail, in a sentence")
    return dict(expected)

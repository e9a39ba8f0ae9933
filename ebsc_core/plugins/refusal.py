"""Refuse what a component of another author is or returns."""

from __future__ import annotations

from typing import NoReturn

from ebsc_core.plugins.kinds import Kind
from ebsc_core.utils.errors import ComponentError


def refuse(component: object, kind: Kind, problem: str) -> NoReturn:
    """Raise a ComponentError that names the component, with its supplier if a registry has built it."""
    # A component that no registry has built is known by its class only.
    owner = getattr(component, "described_as", "") or f"{kind.words} {type(component).__name__}"
    raise ComponentError(f"{owner}: {problem}")

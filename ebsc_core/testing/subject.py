"""Prepare a component for checks: find it, fill in its options, and build it as a run does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebsc_core.plugins.hookspecs import ComponentFamily, ComponentSpec
from ebsc_core.plugins.installed import Provider
from ebsc_core.plugins.registry import Kind, Registry, SelectedComponent
from ebsc_core.plugins.selection import Choice, check_options
from ebsc_core.utils.errors import ComponentError

# The provider of a record that is passed directly.
UNREGISTERED = Provider("(not registered)", "0")


@dataclass
class Subject:
    """Hold a component with its options; a subclass for each kind adds how the component is called."""

    choice: Choice
    root: Path | None = None
    """The folder of named data sets; None means the user's cache."""

    def made(self, *arguments: Any, seed: int = 0) -> Any:
        """Call the factory as a run does, with the random state that the seed determines."""
        return self.choice.build_seeded(seed, *arguments)


def find_choice(
    kind: Kind, part: str | ComponentSpec, options: Mapping[str, Any] | None = None, data: str | None = None
) -> Choice:
    """Find a component and check its options.

    Parameters
    ----------
    kind : Kind
    part : str or ComponentSpec
        The registered name, or the record that a hook would yield.
    options : mapping, optional
        The options that differ from their defaults.
    data : str, optional
        The name that a family called ``part`` resolves, such as a file of its type.

    Raises
    ------
    ComponentError, ConfigError
        If the component cannot be found, or if an option is unknown or has the wrong type.
    """
    if isinstance(part, ComponentSpec):
        component = SelectedComponent(kind, part.name, part, UNREGISTERED)
    elif data is None:
        component = Registry().find(kind, part)
    else:
        component = _of_family(Registry(), kind, part, data)
    return Choice(component, check_options(component, dict(options or {}), kind.section))


def _of_family(registry: Registry, kind: Kind, family: str, name: str) -> SelectedComponent:
    """Resolve a name with one family alone."""
    known = {e.name: e for e in registry.of(kind) if isinstance(e.component, ComponentFamily)}
    if family not in known:
        raise ComponentError(
            f"no family of {kind.words}s is called {family!r} (there are: {', '.join(known)})"
        )
    entry = known[family]
    registry.entries = [entry]
    return registry.find(kind, name)

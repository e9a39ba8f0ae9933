"""A part under test: found, its options filled in, built as a run would build it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebsc_core.plugins.hookspecs import ComponentFamily, ComponentSpec
from ebsc_core.plugins.registry import Kind, Provider, Registry, SelectedComponent
from ebsc_core.plugins.selection import Choice, check_options
from ebsc_core.utils.errors import ComponentError

# Who supplies a record that is handed over directly.
UNREGISTERED = Provider("(not registered)", "0")


@dataclass
class Subject:
    """A part with its options; each kind of part adds how it is called."""

    choice: Choice
    root: Path | None = None
    """Where named data sets are kept; by default in the user's cache."""

    def made(self, *arguments: Any, seed: int = 0) -> Any:
        """Call the factory as a run does, with the random state that the seed decides."""
        return self.choice.build_seeded(seed, *arguments)


def find_choice(
    kind: Kind, part: str | ComponentSpec, options: Mapping[str, Any] | None = None, data: str | None = None
) -> Choice:
    """The part and its options.

    Parameters
    ----------
    kind : Kind
    part : str or ComponentSpec
        Its registered name, or the record a hook would yield.
    options : mapping, optional
        Options that are not to have their default values.
    data : str, optional
        What a family called ``part`` is to resolve, such as a file of its type.

    Raises
    ------
    ComponentError, ConfigError
        If it cannot be found, or an option is unknown or ill-typed.
    """
    if isinstance(part, ComponentSpec):
        component = SelectedComponent(kind, part.name, part, UNREGISTERED)
    elif data is None:
        component = Registry().find(kind, part)
    else:
        component = _of_family(Registry(), kind, part, data)
    return Choice(component, check_options(component, dict(options or {}), kind.section))


def _of_family(registry: Registry, kind: Kind, family: str, name: str) -> SelectedComponent:
    """What one family makes of a name."""
    known = {e.name: e for e in registry.of(kind) if isinstance(e.component, ComponentFamily)}
    if family not in known:
        raise ComponentError(
            f"no family of {kind.words}s is called {family!r} (there are: {', '.join(known)})"
        )
    entry = known[family]
    registry.entries = [entry]
    return registry.find(kind, name)

"""Complete the names of components and settings in the shell, e.g. after ``--backbone`` or ``--set``.

The user installs completion with ``ebsc --install-completion``. The names come from the records of
installed plugins, so that completion imports nothing heavy. It leaves out families such as timm's models,
because a list of their names needs an import of their library. Only the options of a component, after
``--set objective.``, need the import of the component.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import redirect_stderr, suppress

import typer

from ebsc_core.plugins.kinds import Kind

Completer = Callable[[str], list[tuple[str, str]]]


def parts(kind: Kind) -> Completer:
    """Return a completer that offers the names and summaries of one kind of component."""

    def complete(incomplete: str) -> list[tuple[str, str]]:
        # Imported here, so that `ebsc --help` does not wait for pluggy.
        from ebsc_core.plugins.hookspecs import ComponentSpec
        from ebsc_core.plugins.registry import Registry

        # The shell must not show it if a plugin does not load, or prints something.
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
            try:
                entries = Registry().of(kind)
            except Exception:  # raised with EBSC_STRICT_PLUGINS
                return []
        single = [entry for entry in entries if isinstance(entry.component, ComponentSpec)]
        return [
            (entry.name, entry.component.summary) for entry in single if entry.name.startswith(incomplete)
        ]

    return complete


def setting_names() -> list[str]:
    """Return the names of the settings that do not depend on the chosen components."""
    from ebsc_core.config.messages import field_names
    from ebsc_core.config.schema import RunConfig

    names = list[str]()
    for section in RunConfig.model_fields.keys() - {"views", Kind.OBSERVER.section}:
        names += [f"{section}.{name}" for name in field_names(RunConfig, [section])] or [section]
    return sorted(names)


def one_of(*values: str) -> Callable[[str], list[str]]:
    """Return a completer that offers fixed values."""

    def complete(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return complete


def settings(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the settings for ``--set``; in the section of a component, those of the chosen component, too."""
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        section, dot, _ = incomplete.partition(".")
        names = setting_names() + (_options(section, ctx.params.get(section)) if dot else [])
    return [f"{name}=" for name in sorted(set(names)) if name.startswith(incomplete)]


def settings_of(sections: Collection[str]) -> Callable[[typer.Context, str], list[str]]:
    """Return a completer that offers the settings of these sections alone."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        return [name for name in settings(ctx, incomplete) if name.rstrip("=").partition(".")[0] in sections]

    return complete


def _options(section: str, name: str | None) -> list[str]:
    """Return the options of a component, which is the default one if none is named."""
    from ebsc_core.plugins.kinds import REQUIRED
    from ebsc_core.plugins.registry import Registry

    registry = Registry()
    found = list[str]()
    for kind in (kind for kind in REQUIRED if kind.section == section):
        with suppress(Exception):  # the component may be unknown, or not load
            component = registry.find(kind, name or registry.default(kind))
            found += [f"{section}.{option}" for option in component.options_class.model_fields]
    return found

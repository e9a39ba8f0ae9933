"""Complete the names of components in the shell, e.g. after ``--backbone``.

The user installs completion with ``ebsc --install-completion``. The names come from the records of
installed plugins, so that completion imports nothing heavy. It leaves out families such as timm's models,
because a list of their names needs an import of their library.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import redirect_stderr

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
    from ebsc_core.config.schema import FeaturesChoice, RunConfig

    names = list[str]()
    for section in RunConfig.model_fields.keys() - {"views", Kind.OBSERVER.section}:
        below = (
            list(FeaturesChoice.model_fields) if section == "features" else field_names(RunConfig, [section])
        )
        names += [f"{section}.{name}" for name in below] or [section]
    return sorted(names)

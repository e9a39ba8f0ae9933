"""What a shell is offered after ``--backbone`` and its like, once ``ebsc --install-completion`` was called.

The names come from the records of installed plugins, so that nothing heavy is imported. Families that stand
for many, such as all of timm's models, are left out: listing those imports their library.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import redirect_stderr

from ebsc_core.plugins.hookspecs import ComponentSpec
from ebsc_core.plugins.kinds import Kind
from ebsc_core.plugins.registry import Registry

Completer = Callable[[str], list[tuple[str, str]]]


def parts(kind: Kind) -> Completer:
    """What completes the name of such a part, with what each is in words."""

    def complete(incomplete: str) -> list[tuple[str, str]]:
        # A plugin that cannot be loaded, or prints, is none of the shell's business.
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
            try:
                entries = Registry().of(kind)
            except Exception:  # EBSC_STRICT_PLUGINS
                return []
        single = [entry for entry in entries if isinstance(entry.component, ComponentSpec)]
        return [
            (entry.name, entry.component.summary) for entry in single if entry.name.startswith(incomplete)
        ]

    return complete

"""Sources of small plugins, and what the fixture ``plugin`` makes of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from importlib.metadata import EntryPoint

from ebsc_core.plugins.installed import Provider

Plugin = tuple[EntryPoint, Provider]
MakePlugin = Callable[..., Plugin]

HEAD = "from ebsc_core import ComponentFamily, ComponentSpec, Options, hookimpl\n"
NUMBERS = itertools.count()


def objective(name: str, extra: str = "") -> str:
    record = f'ComponentSpec("{name}", "A loss.", dict{extra})'
    return f"{HEAD}@hookimpl\ndef ebsc_objectives():\n    yield {record}\n"


def family(name: str, resolve: str, names: str = "tuple") -> str:
    record = f'ComponentFamily("{name}", "Many losses.", {resolve}, names={names})'
    return f"{HEAD}@hookimpl\ndef ebsc_objectives():\n    yield {record}\n"


def answers_to(prefix: str) -> str:
    spec = 'ComponentSpec(n, "One of many.", dict)'
    return f"lambda n: {spec} if n.startswith('{prefix}') else None"

"""Find the installed distributions that offer plugins."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any

from ebsc_core.plugins.hookspecs import ENTRY_POINT_GROUP

OWN_DISTRIBUTION = "ebsc"
# EBSC_DISABLE_PLUGINS lists the plugins to leave out; * means all except those of our own distribution.
DISABLED, ALL_OTHERS = "EBSC_DISABLE_PLUGINS", "*"


@dataclass(frozen=True)
class Provider:
    """Identify the installed distribution that a component comes from."""

    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


def installed_entry_points() -> list[tuple[EntryPoint, Provider]]:
    """Return the entry points of the group ``ebsc`` with their distributions, in a fixed order.

    Malformed ones are among them, and so are those of a distribution that has misspelt the group:
    :func:`loaded` says what is wrong with each.
    """
    disabled = {canonical(name) for name in os.environ.get(DISABLED, "").split(",")}
    found: dict[tuple[str, str], tuple[EntryPoint, Provider]] = {}
    for distribution in distributions():
        try:
            text = distribution.read_text("entry_points.txt") or ""
            # Few distributions have plugins, and parsing takes longer than this search.
            if ENTRY_POINT_GROUP not in text.lower():
                continue
            provided = [(entry_point, _provider(distribution)) for entry_point in _offered(text)]
        except Exception:  # unreadable metadata: even the name of the distribution is unknown
            continue
        for entry_point, provider in provided:
            names = {canonical(entry_point.name), canonical(provider.distribution)}
            if provider.distribution != OWN_DISTRIBUTION:
                names.add(ALL_OTHERS)
            if not disabled & names:
                # An editable install may show the same distribution twice on sys.path.
                key = (provider.distribution, entry_point.name)
                found.setdefault(key, (entry_point, provider))
    return [found[key] for key in sorted(found)]


def _offered(text: str) -> list[EntryPoint]:
    """Read the entry points that are, or should be, of the group ``ebsc``.

    Unlike the parser of the standard library, a line that is none does not hide the others.
    """
    own, misspelt, group = list[EntryPoint](), list[EntryPoint](), ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            group = line.strip("[]")
        elif line and not line.startswith("#") and canonical(group).startswith(ENTRY_POINT_GROUP):
            name, _, value = map(str.strip, line.partition("="))
            (own if group == ENTRY_POINT_GROUP else misspelt).append(EntryPoint(name, value, group))
    return own or misspelt


def loaded(entry_point: EntryPoint) -> Any:
    """Import what an entry point names.

    Raises
    ------
    ValueError
        If it names nothing, or is of another group.
    """
    if entry_point.group != ENTRY_POINT_GROUP:
        raise ValueError(
            f"its entry point is of the group {entry_point.group!r}; it belongs to {ENTRY_POINT_GROUP!r}"
        )
    if not entry_point.pattern.match(entry_point.value):
        line = f"{entry_point.name} = {entry_point.value}" if entry_point.value else entry_point.name
        raise ValueError(f"its entry point {line!r} names no module; write 'name = package.module'")
    return entry_point.load()


def _provider(distribution: Distribution) -> Provider:
    """Identify a distribution; a half removed one may lack its name or version."""
    metadata = distribution.metadata
    return Provider(metadata["Name"] or "unknown", metadata["Version"] or "unknown")


def canonical(name: str) -> str:
    """Normalise a name: ``My_Package`` and ``my-package`` are one distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()

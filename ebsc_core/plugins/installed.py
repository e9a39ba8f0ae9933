"""Find the installed distributions that offer plugins."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions

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
    """Return the entry points of the group ``ebsc`` with their distributions, in a fixed order."""
    disabled = {canonical(name) for name in os.environ.get(DISABLED, "").split(",")}
    found: dict[tuple[str, str], tuple[EntryPoint, Provider]] = {}
    for distribution in distributions():
        try:
            # Few distributions have plugins, and parsing takes longer than this search.
            if ENTRY_POINT_GROUP not in (distribution.read_text("entry_points.txt") or ""):
                continue
            offered = distribution.entry_points.select(group=ENTRY_POINT_GROUP)
            provided = [(entry_point, _provider(distribution)) for entry_point in offered]
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


def _provider(distribution: Distribution) -> Provider:
    """Identify a distribution; a half removed one may lack its name or version."""
    metadata = distribution.metadata
    return Provider(metadata["Name"] or "unknown", metadata["Version"] or "unknown")


def canonical(name: str) -> str:
    """Normalise a name: ``My_Package`` and ``my-package`` are one distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()

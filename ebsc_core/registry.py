"""Finding parts: discovery through entry points, provenance, conflicts, and "did you mean".

One plugin that cannot be loaded never takes the program down: it is kept as a :class:`Failure` and
shown by ``ebsc plugins list``; it matters only to someone who wanted a part of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from enum import Enum
from functools import cached_property
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any

import pluggy

from ebsc_core.errors import EbscError, PartError
from ebsc_core.hookspecs import (
    API_VERSION,
    ENTRY_POINT_GROUP,
    Component,
    ComponentFamily,
    ComponentSpec,
    Hooks,
)


class UnknownPartError(PartError):
    """No installed plugin answers to a name."""


OWN_DISTRIBUTION = "ebsc"


class Kind(Enum):
    """The kinds of part: ``value`` is the configuration section, ``hook`` what yields them."""

    DATA = ("data", "ebsc_datasets", "data set")
    BACKBONE = ("backbone", "ebsc_backbones", "backbone")
    OBJECTIVE = ("objective", "ebsc_objectives", "objective")
    COEFFICIENTS = ("coefficients", "ebsc_coefficient_models", "coefficient model")
    CLUSTERER = ("clusterer", "ebsc_clusterers", "clusterer")

    def __init__(self, section: str, hook: str, words: str) -> None:
        self.section, self.hook, self.words = section, hook, words


@dataclass(frozen=True)
class Provider:
    """The installed distribution a part came from."""

    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True)
class Entry:
    """A registered part or family, with where it came from."""

    kind: Kind
    component: Component
    provider: Provider

    @property
    def name(self) -> str:
        return self.component.name


@dataclass(frozen=True)
class Failure:
    """A plugin, or one record of it, that could not be registered."""

    plugin: str
    provider: Provider
    reason: str


@dataclass(frozen=True)
class Part:
    """A part someone selected: its record is found, its options class loaded."""

    kind: Kind
    name: str
    """As it was selected, with the distribution where that was given."""
    spec: ComponentSpec
    provider: Provider

    @cached_property
    def factory(self) -> Callable[..., Any]:
        return _load(self.spec.factory, self)

    @cached_property
    def options_class(self) -> type:
        declared = self.spec.options
        if declared is None:
            from ebsc_core.options import Options

            return getattr(self.factory, "Options", Options)
        return _load(declared, self)


class Registry:
    """All parts of all installed plugins.

    Parameters
    ----------
    entry_points : iterable of (EntryPoint, Provider), optional
        What to load; by default every installed entry point of the group ``ebsc`` that
        ``EBSC_DISABLE_PLUGINS`` (names or distributions, separated by commas) does not exclude.
    """

    def __init__(self, entry_points: Iterable[tuple[EntryPoint, Provider]] | None = None) -> None:
        self.entries: list[Entry] = []
        self.failures: list[Failure] = []
        self.packages: set[str] = set()
        """Top-level packages the plugins are in."""
        for entry_point, provider in installed_entry_points() if entry_points is None else entry_points:
            self._register(entry_point, provider)

    def _register(self, entry_point: EntryPoint, provider: Provider) -> None:
        # Anything a stranger's module raises must stop at its own plugin.
        try:
            found = _entries(entry_point.load(), provider)
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            self.failures.append(Failure(entry_point.name, provider, reason))
        else:
            self.entries.extend(found)
            self.packages.add(entry_point.module.partition(".")[0])

    def of(self, kind: Kind) -> list[Entry]:
        """Entries of one kind, by name."""
        return sorted((e for e in self.entries if e.kind is kind), key=lambda e: e.name)

    def default(self, kind: Kind) -> str:
        """The name of the part a run uses when it names none.

        A default of the distribution this framework comes in wins: installing a plugin changes nothing for
        those who do not name its parts.

        Raises
        ------
        PartError
            If no installed plugin, or more than one other, offers a default.
        """
        offered = [e for e in self.of(kind) if isinstance(e.component, ComponentSpec) and e.component.default]
        chosen = [e for e in offered if e.provider.distribution == OWN_DISTRIBUTION] or offered
        if len(chosen) != 1:
            names = ", ".join(f"{e.name} ({e.provider})" for e in chosen) or "none is installed"
            raise PartError(f"no single default {kind.words} ({names}); name one with --{kind.section}")
        return chosen[0].name

    def find(self, kind: Kind, name: str) -> Part:
        """The part called ``name``, or ``distribution:name`` to settle a conflict.

        Raises
        ------
        UnknownPartError
            If nothing answers to the name; suggests the nearest names and mentions plugins that failed
            to load.
        PartError
            If more than one plugin answers to it.
        """
        singles = [e for e in self.of(kind) if isinstance(e.component, ComponentSpec)]
        found = [
            Part(kind, name, e.component, e.provider)  # type: ignore[arg-type]
            for e in singles
            if e.name == _within(e.provider, name)
        ]
        broken: list[str] = []
        if not found:
            found = self._of_families(kind, name, broken)
        if len(found) > 1:
            choices = " or ".join(f"{p.provider.distribution}:{p.name}" for p in found)
            providers = ", ".join(str(p.provider) for p in found)
            raise PartError(f"{kind.words} {name!r} is offered by {providers}; say which: {choices}")
        if not found:
            raise UnknownPartError(f"unknown {kind.words} {name!r}: {self.hint(name, [kind], broken)}")
        return found[0]

    def names(self, kind: Kind) -> list[str]:
        """Every name of one kind that is known without guessing, those of families included."""
        names = []
        for entry in self.of(kind):
            if isinstance(entry.component, ComponentSpec):
                names.append(entry.name)
            else:
                with suppress(Exception):  # a stranger's; it only costs suggestions
                    names.extend(_load(entry.component.names, entry)())
        return names

    def _of_families(self, kind: Kind, name: str, broken: list[str]) -> list[Part]:
        """What families answer to ``name``; families that fail are noted in ``broken``."""
        found = []
        for entry in self.of(kind):
            if not isinstance(entry.component, ComponentFamily):
                continue
            try:
                spec = _load(entry.component.resolve, entry)(_within(entry.provider, name))
            except EbscError as error:
                broken.append(str(error))
            except Exception as error:  # a stranger's; other families may still answer
                broken.append(f"{entry.name} of {entry.provider}: {type(error).__name__}: {error}")
            else:
                if spec is not None:
                    spec = replace(spec, reference=spec.reference or entry.component.reference)
                    found.append(Part(kind, name, spec, entry.provider))
        return found

    def hint(self, name: str, kinds: Iterable[Kind], broken: Iterable[str] = ()) -> str:
        """What to say of a name nothing answers to: the nearest names, and what was not loaded."""
        known = {candidate.lower(): candidate for kind in kinds for candidate in self.names(kind)}
        near = [known[lower] for lower in get_close_matches(name.lower(), known, n=3, cutoff=0.6)]
        hint = f"did you mean {' or '.join(near)}?" if near else "see `ebsc plugins list`"
        failed = [*(f"{f.plugin} of {f.provider}" for f in self.failures), *broken]
        also = f" (not loaded: {', '.join(failed)}; see `ebsc plugins list`)" if failed else ""
        return hint + also


def installed_entry_points() -> list[tuple[EntryPoint, Provider]]:
    """Entry points of the group ``ebsc``, with their distributions, in a fixed order."""
    disabled = {_canonical(name) for name in os.environ.get("EBSC_DISABLE_PLUGINS", "").split(",")}
    found: dict[tuple[str, str], tuple[EntryPoint, Provider]] = {}
    for distribution in distributions():
        for entry_point in distribution.entry_points.select(group=ENTRY_POINT_GROUP):
            provider = _provider(distribution)
            if not disabled & {_canonical(entry_point.name), _canonical(provider.distribution)}:
                # An editable install may show the same distribution twice on sys.path.
                key = (provider.distribution, entry_point.name)
                found.setdefault(key, (entry_point, provider))
    return [found[key] for key in sorted(found)]


def _provider(distribution: Distribution) -> Provider:
    return Provider(distribution.metadata["Name"], distribution.version)


def _canonical(name: str) -> str:
    """``My_Package`` and ``my-package`` are one distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _within(provider: Provider, name: str) -> str:
    """``name`` without the distribution it may start with, if that is this provider's."""
    distribution, _, bare = name.partition(":")
    return bare if _canonical(distribution) == _canonical(provider.distribution) else name


def _entries(plugin: object, provider: Provider) -> list[Entry]:
    """What a plugin's hooks yield. It gets a manager of its own, so that its faults stay its own."""
    manager = pluggy.PluginManager(ENTRY_POINT_GROUP)
    manager.add_hookspecs(Hooks)
    manager.register(plugin)
    manager.check_pending()
    entries = []
    for kind in Kind:
        hook = getattr(manager.hook, kind.hook)
        yielded = hook()
        if hook.get_hookimpls() and not yielded:  # pluggy drops None
            raise TypeError(f"{kind.hook} returned nothing; it must yield or return records")
        entries += [
            Entry(kind, _checked(component, kind), provider)
            for components in yielded
            for component in components
        ]
    return entries


def _checked(component: object, kind: Kind) -> Component:
    if not isinstance(component, ComponentSpec | ComponentFamily):
        raise TypeError(
            f"{kind.hook} yielded a {type(component).__name__}, not a ComponentSpec or ComponentFamily"
        )
    if component.api_version != API_VERSION:
        raise TypeError(
            f"{component.name!r} is written for api_version {component.api_version}, this is {API_VERSION}"
        )
    if not (isinstance(component.name, str) and component.name and isinstance(component.summary, str)):
        raise TypeError(f"{kind.hook} yielded a record whose name or summary is not text: {component!r}")
    return component


def _load(target: Any, owner: Part | Entry) -> Any:
    """Resolve ``"package.module:attribute"``; anything else is returned as it is."""
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except Exception as error:
        raise PartError(
            f"{owner.kind.words} {owner.name!r} of {owner.provider} could not be loaded "
            f"({type(error).__name__}: {error}); repair or reinstall {owner.provider.distribution}"
        ) from error

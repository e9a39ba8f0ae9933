"""Finding parts: discovery through entry points, provenance, conflicts, and "did you mean".

One plugin that cannot be loaded never takes the program down: it is kept as a :class:`Failure` and
shown by ``ebsc plugins list``; it matters only to someone who wanted a part of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from functools import cached_property
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any

import pluggy

from ebsc_core.errors import PartError
from ebsc_core.hookspecs import (
    API_VERSION,
    ENTRY_POINT_GROUP,
    Component,
    ComponentFamily,
    ComponentSpec,
    Hooks,
)


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
        self.manager = pluggy.PluginManager(ENTRY_POINT_GROUP)
        self.manager.add_hookspecs(Hooks)
        self.entries: list[Entry] = []
        self.failures: list[Failure] = []
        for entry_point, provider in entry_points or installed_entry_points():
            self._register(entry_point, provider)

    def _register(self, entry_point: EntryPoint, provider: Provider) -> None:
        # Anything a stranger's module raises must stop at its own plugin.
        try:
            plugin = entry_point.load()
            self.manager.register(plugin, name=f"{provider.distribution}:{entry_point.name}")
            self.manager.check_pending()
            found = [entry for kind in Kind for entry in self._components(plugin, kind, provider)]
        except Exception as error:
            self._unregister(f"{provider.distribution}:{entry_point.name}")
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            self.failures.append(Failure(entry_point.name, provider, reason))
        else:
            self.entries.extend(found)

    def _unregister(self, name: str) -> None:
        if self.manager.has_plugin(name):
            self.manager.unregister(name=name)

    def _components(self, plugin: object, kind: Kind, provider: Provider) -> list[Entry]:
        hook = getattr(plugin, kind.hook, None)
        return [Entry(kind, _checked(component, kind), provider) for component in (hook() if hook else ())]

    def of(self, kind: Kind) -> list[Entry]:
        """Entries of one kind, by name."""
        return sorted((e for e in self.entries if e.kind is kind), key=lambda e: e.name)

    def default(self, kind: Kind) -> str:
        """The name of the part a run uses when it names none.

        Raises
        ------
        PartError
            If no installed plugin, or more than one, offers a default.
        """
        names = [e for e in self.of(kind) if isinstance(e.component, ComponentSpec) and e.component.default]
        if len(names) != 1:
            offered = ", ".join(f"{e.name} ({e.provider})" for e in names) or "none is installed"
            raise PartError(f"no single default {kind.words} ({offered}); name one with --{kind.section}")
        return names[0].name

    def find(self, kind: Kind, name: str) -> Part:
        """The part called ``name``, or ``distribution:name`` to settle a conflict.

        Raises
        ------
        PartError
            If nothing or more than one plugin answers to the name; suggests the nearest names and
            mentions plugins that failed to load.
        """
        distribution, _, bare = name.rpartition(":")
        exact = [
            e
            for e in self.of(kind)
            if (e.name == name or (e.name == bare and e.provider.distribution == distribution))
            and isinstance(e.component, ComponentSpec)
        ]
        if len(exact) > 1:
            choices = " or ".join(f"{e.provider.distribution}:{e.name}" for e in exact)
            providers = ", ".join(str(e.provider) for e in exact)
            raise PartError(f"{kind.words} {name!r} is offered by {providers}; say which: {choices}")
        if exact:
            return Part(kind, exact[0].name, exact[0].component, exact[0].provider)  # type: ignore[arg-type]
        for entry in self.of(kind):
            if isinstance(entry.component, ComponentFamily):
                resolve = _load(entry.component.resolve, entry)
                spec = resolve(name)
                if spec is not None:
                    return Part(kind, name, spec, entry.provider)
        raise PartError(self._unknown(kind, name))

    def _unknown(self, kind: Kind, name: str) -> str:
        names = [e.name for e in self.of(kind) if isinstance(e.component, ComponentSpec)]
        for entry in self.of(kind):
            if isinstance(entry.component, ComponentFamily):
                names.extend(_load(entry.component.names, entry)())
        near = get_close_matches(name, names, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else "see `ebsc plugins list`"
        failed = ", ".join(f"{f.plugin} of {f.provider}" for f in self.failures)
        also = f" (not loaded: {failed}; see `ebsc plugins list`)" if failed else ""
        return f"unknown {kind.words} {name!r}: {hint}{also}"


def installed_entry_points() -> list[tuple[EntryPoint, Provider]]:
    """Entry points of the group ``ebsc``, with their distributions, in a fixed order."""
    disabled = {name.strip() for name in os.environ.get("EBSC_DISABLE_PLUGINS", "").split(",")}
    found: dict[tuple[str, str], tuple[EntryPoint, Provider]] = {}
    for distribution in distributions():
        for entry_point in distribution.entry_points.select(group=ENTRY_POINT_GROUP):
            provider = _provider(distribution)
            if not disabled & {entry_point.name, provider.distribution}:
                # An editable install may show the same distribution twice on sys.path.
                key = (provider.distribution, entry_point.name)
                found.setdefault(key, (entry_point, provider))
    return [found[key] for key in sorted(found)]


def _provider(distribution: Distribution) -> Provider:
    return Provider(distribution.metadata["Name"], distribution.version)


def _checked(component: object, kind: Kind) -> Component:
    if not isinstance(component, ComponentSpec | ComponentFamily):
        raise TypeError(
            f"{kind.hook} yielded a {type(component).__name__}, not a ComponentSpec or ComponentFamily"
        )
    if component.api_version != API_VERSION:
        raise TypeError(
            f"{component.name!r} is written for api_version {component.api_version}, this is {API_VERSION}"
        )
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

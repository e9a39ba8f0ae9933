"""Finding parts: discovery through entry points, provenance, conflicts, and "did you mean".

One plugin that cannot be loaded never takes the program down: it is kept as a :class:`Plugin` and
shown by ``ebsc plugins list``; it matters only to someone who wanted a part of it, or to everybody if
``EBSC_STRICT_PLUGINS`` is set.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any

from ebsc_core.plugins.hookspecs import ENTRY_POINT_GROUP, Component, ComponentFamily, ComponentSpec
from ebsc_core.plugins.kinds import Kind as Kind
from ebsc_core.plugins.validation import check_record, claimed, records_of
from ebsc_core.utils.errors import ComponentError, EbscError, told


class UnknownComponentError(ComponentError):
    """No installed plugin answers to a name."""


class BrokenPluginError(UnknownComponentError):
    """A name is of a plugin that could not be registered."""


OWN_DISTRIBUTION = "ebsc"
# Names the plugins that are left out; * means all but those of our own distribution.
DISABLED, ALL_OTHERS = "EBSC_DISABLE_PLUGINS", "*"
# A plugin that takes longer to load makes everybody wait, even for help.
SLOW_SECONDS = 1.0


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
class Plugin:
    """An installed entry point, and how loading it went: all of it is registered, or nothing."""

    plugin: str
    provider: Provider
    seconds: float
    reason: str = ""
    """Why it could not be registered."""
    error: BaseException | None = None
    offered: frozenset[tuple[Kind, str]] = frozenset()
    """What it had offered when it failed."""

    @property
    def status(self) -> str:
        """``ok``, ``failed``, or ``slow``: it works, but took longer than a second to load."""
        if self.error:
            return "failed"
        return "slow" if self.seconds > SLOW_SECONDS else "ok"

    def __str__(self) -> str:
        return f"{self.plugin} of {self.provider}"

    def meant_by(self, kind: Kind, name: str) -> bool:
        """Whether somebody who asks for ``name`` wants a part of this plugin."""
        own = {_canonical(self.plugin), _canonical(self.provider.distribution)}
        bare = _within(self.provider, name)
        return bare != name or (kind, name) in self.offered or _canonical(name) in own


@dataclass(frozen=True)
class SelectedComponent:
    """A part someone selected: its record is found, its options class loaded."""

    kind: Kind
    name: str
    """As it was selected, with the distribution where that was given."""
    spec: ComponentSpec
    provider: Provider

    @property
    def bare_name(self) -> str:
        """Without the distribution."""
        return _within(self.provider, self.name)

    @cached_property
    def factory(self) -> Callable[..., Any]:
        return _load(self.spec.factory, self)

    @cached_property
    def options_class(self) -> type:
        declared = self.spec.options
        if declared is None:
            from ebsc_core.config.options import Options

            options = getattr(self.factory, "Options", Options)
        else:
            options = _load(declared, self)
        if problem := claimed(options, self.kind):
            raise ComponentError(f"{self.kind.words} {self.name!r} of {self.provider}: {problem}")
        return options


class Registry:
    """All parts of all installed plugins.

    Parameters
    ----------
    entry_points : iterable of (EntryPoint, Provider), optional
        What to load; by default every installed entry point of the group ``ebsc`` that
        ``EBSC_DISABLE_PLUGINS`` (names or distributions, separated by commas; ``*`` for all but our own)
        does not exclude.

    Raises
    ------
    BrokenPluginError
        If a plugin cannot be registered and ``EBSC_STRICT_PLUGINS`` is set.
    """

    def __init__(self, entry_points: Iterable[tuple[EntryPoint, Provider]] | None = None) -> None:
        self.entries: list[Entry] = []
        self.plugins: list[Plugin] = []
        """All that were found."""
        self.packages: set[str] = set()
        """Top-level packages the plugins are in."""
        for entry_point, provider in installed_entry_points() if entry_points is None else entry_points:
            self._register(entry_point, provider)

    @property
    def failures(self) -> list[Plugin]:
        """Plugins that could not be registered."""
        return [plugin for plugin in self.plugins if plugin.error]

    def _register(self, entry_point: EntryPoint, provider: Provider) -> None:
        offered: list[Entry] = []
        error, reason, began = None, "", time.perf_counter()
        # Anything a stranger's module raises must stop at its own plugin.
        try:
            # What it prints is not part of what we print.
            with redirect_stdout(sys.stderr):
                taken = {(e.kind, e.name, e.provider) for e in self.entries}
                for kind, component in records_of(entry_point.load()):
                    entry = Entry(kind, component, provider)
                    offered.append(entry)
                    check_record(kind, component)
                    # Not even ``distribution:name`` would say which.
                    if (claim := (kind, entry.name, provider)) in taken:
                        raise ValueError(f"{provider} offers the {kind.words} {entry.name!r} twice")
                    taken.add(claim)
        except KeyboardInterrupt:
            raise
        except BaseException as caught:
            error, reason = caught, told(caught)
        seconds = time.perf_counter() - began
        names = frozenset((e.kind, e.name) for e in offered if error and isinstance(e.name, str))
        self.plugins.append(Plugin(entry_point.name, provider, seconds, reason, error, names))
        if error is None:
            self.entries.extend(offered)
            self.packages.add(entry_point.module.partition(".")[0])
        elif strict():
            raise BrokenPluginError(
                f"plugin {self.plugins[-1]} did not load: {reason} (EBSC_STRICT_PLUGINS is set)"
            ) from error

    def of(self, kind: Kind) -> list[Entry]:
        """Entries of one kind, by name."""
        return sorted((e for e in self.entries if e.kind is kind), key=lambda e: e.name)

    def default(self, kind: Kind) -> str:
        """The name of the part a run uses when it names none.

        A default of the distribution this framework comes in wins, whatever others call theirs: installing a
        plugin changes nothing for those who do not name its parts.

        Raises
        ------
        ComponentError
            If no installed plugin, or more than one other, offers a default.
        """
        entry = self.default_entry(kind)
        claimed = any(e.name == entry.name for e in self.of(kind) if _single(e) and e is not entry)
        return f"{entry.provider.distribution}:{entry.name}" if claimed else entry.name

    def default_entry(self, kind: Kind) -> Entry:
        """The record of the part that :meth:`default` names."""
        offered = [e for e in self.of(kind) if isinstance(e.component, ComponentSpec) and e.component.default]
        chosen = [e for e in offered if e.provider.distribution == OWN_DISTRIBUTION] or offered
        if len(chosen) != 1:
            names = ", ".join(f"{e.name} ({e.provider})" for e in chosen) or "none is installed"
            raise ComponentError(f"no single default {kind.words} ({names}); name one with `{kind.setting}`")
        return chosen[0]

    def conflicts(self) -> list[str]:
        """What is claimed by several plugins, a line each; it matters only to someone who selects it."""
        found = []
        for kind in Kind:
            claims: dict[str, list[Entry]] = {}
            for entry in filter(_single, self.of(kind)):
                claims.setdefault(entry.name, []).append(entry)
            found += [
                _conflict(kind, name, [e.provider for e in claimants])
                for name, claimants in claims.items()
                if len(claimants) > 1
            ]
        return found

    def find(self, kind: Kind, name: str) -> SelectedComponent:
        """The part called ``name``, or ``distribution:name`` to settle a conflict.

        Raises
        ------
        UnknownComponentError
            If nothing answers to the name; suggests the nearest names and mentions plugins that failed
            to load.
        BrokenPluginError
            If it is of one that failed to load.
        ComponentError
            If more than one plugin answers to it.
        """
        singles = [e for e in self.of(kind) if _single(e)]
        found = [
            SelectedComponent(kind, name, e.component, e.provider)  # type: ignore[arg-type]
            for e in singles
            if e.name == _within(e.provider, name)
        ]
        broken: list[str] = []
        if not found:
            found = self._of_families(kind, name, broken)
        if len(found) > 1:
            raise ComponentError(_conflict(kind, name, [p.provider for p in found]))
        if not found:
            for plugin in self.failures:
                if plugin.meant_by(kind, name):
                    raise BrokenPluginError(
                        f"{name!r} is of plugin {plugin}, which did not load: {plugin.reason}; "
                        f"repair or update {plugin.provider.distribution}"
                    ) from plugin.error
            raise UnknownComponentError(f"unknown {kind.words} {name!r}: {self.hint(name, [kind], broken)}")
        return found[0]

    def names(self, kind: Kind) -> list[str]:
        """Every name of one kind that is known without guessing, those of families included."""
        names = []
        for entry in self.of(kind):
            if isinstance(entry.component, ComponentFamily):
                with suppress(Exception, SystemExit):  # a stranger's; it only costs suggestions
                    names.extend(_load(entry.component.names, entry)())
            else:
                names.append(entry.name)
        return names

    def _of_families(self, kind: Kind, name: str, broken: list[str]) -> list[SelectedComponent]:
        """What families answer to ``name``; families that fail are noted in ``broken``."""
        found = []
        for entry in self.of(kind):
            if not isinstance(entry.component, ComponentFamily):
                continue
            try:
                spec = _load(entry.component.resolve, entry)(_within(entry.provider, name))
                if not isinstance(spec, ComponentSpec | None):
                    raise TypeError(f"it resolves {name!r} to a {type(spec).__name__}, not a ComponentSpec")
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # a stranger's; other families may still answer
                reason = str(error) if isinstance(error, EbscError) else told(error)
                broken.append(f"{entry.name} of {entry.provider}: {reason}")
                if strict():
                    raise BrokenPluginError(f"{broken[-1]} (EBSC_STRICT_PLUGINS is set)") from error
            else:
                if spec is not None:
                    spec = replace(spec, reference=spec.reference or entry.component.reference)
                    found.append(SelectedComponent(kind, name, spec, entry.provider))
        return found

    def hint(self, name: str, kinds: Iterable[Kind], broken: Iterable[str] = ()) -> str:
        """What to say of a name nothing answers to: the nearest names, and what was not loaded."""
        known = {candidate.lower(): candidate for kind in kinds for candidate in self.names(kind)}
        near = [known[lower] for lower in get_close_matches(name.lower(), known, n=3, cutoff=0.6)]
        hint = f"did you mean {' or '.join(near)}?" if near else "see `ebsc plugins list`"
        failed = [*map(str, self.failures), *broken]
        also = f" (not loaded: {', '.join(failed)}; see `ebsc plugins list`)" if failed else ""
        return hint + also


def installed_entry_points() -> list[tuple[EntryPoint, Provider]]:
    """Entry points of the group ``ebsc``, with their distributions, in a fixed order."""
    disabled = {_canonical(name) for name in os.environ.get(DISABLED, "").split(",")}
    found: dict[tuple[str, str], tuple[EntryPoint, Provider]] = {}
    for distribution in distributions():
        try:
            offered = distribution.entry_points.select(group=ENTRY_POINT_GROUP)
            provided = [(entry_point, _provider(distribution)) for entry_point in offered]
        except Exception:  # its metadata cannot be read; whose it is cannot be said
            continue
        for entry_point, provider in provided:
            names = {_canonical(entry_point.name), _canonical(provider.distribution)}
            if provider.distribution != OWN_DISTRIBUTION:
                names.add(ALL_OTHERS)
            if not disabled & names:
                # An editable install may show the same distribution twice on sys.path.
                key = (provider.distribution, entry_point.name)
                found.setdefault(key, (entry_point, provider))
    return [found[key] for key in sorted(found)]


def _provider(distribution: Distribution) -> Provider:
    """Of a half removed distribution neither may be left."""
    metadata = distribution.metadata
    return Provider(metadata["Name"] or "unknown", metadata["Version"] or "unknown")


def _canonical(name: str) -> str:
    """``My_Package`` and ``my-package`` are one distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _within(provider: Provider, name: str) -> str:
    """``name`` without the distribution it may start with, if that is this provider's."""
    distribution, colon, bare = name.partition(":")
    return bare if colon and _canonical(distribution) == _canonical(provider.distribution) else name


def strict() -> bool:
    """Whether any failure of a plugin is to end the command (``EBSC_STRICT_PLUGINS``)."""
    return os.environ.get("EBSC_STRICT_PLUGINS", "") not in ("", "0")


def _single(entry: Entry) -> bool:
    return isinstance(entry.component, ComponentSpec)


def _conflict(kind: Kind, name: str, providers: list[Provider]) -> str:
    bare = _within(providers[0], name)
    choices = " or ".join(f"{provider.distribution}:{bare}" for provider in providers)
    offered = ", ".join(map(str, providers))
    return f"{kind.words} {name!r} is offered by {offered}; say which: {choices}"


def _load(target: Any, owner: SelectedComponent | Entry) -> Any:
    """Resolve ``"package.module:attribute"``; anything else is returned as it is."""
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ComponentError(
            f"{owner.kind.words} {owner.name!r} of {owner.provider} could not be loaded "
            f"({told(error)}); repair or reinstall {owner.provider.distribution}"
        ) from error

"""Find components: load plugins from entry points, report conflicts, and suggest similar names.

A plugin that cannot be loaded does not stop the program. The registry keeps it as a :class:`Plugin`, and
``ebsc plugins list`` shows it. It causes an error only if somebody selects one of its components, or if
``EBSC_STRICT_PLUGINS`` is set.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any, NoReturn

from ebsc_core.plugins.hookspecs import Component, ComponentFamily, ComponentSpec
from ebsc_core.plugins.installed import OWN_DISTRIBUTION, Provider, canonical, installed_entry_points, loaded
from ebsc_core.plugins.kinds import Kind as Kind
from ebsc_core.plugins.paths import described_path, exists, near_paths
from ebsc_core.plugins.validation import check_record, claimed, records_of
from ebsc_core.utils.errors import ComponentError, EbscError, told

if TYPE_CHECKING:
    from ebsc_core.config.options import Options


class UnknownComponentError(ComponentError):
    """Report that no installed plugin offers a component of this name."""


class BrokenPluginError(UnknownComponentError):
    """Report that the name belongs to a plugin that could not be registered."""


# A plugin that takes longer to load delays every command that needs components, and completion.
SLOW_SECONDS = 1.0


@dataclass(frozen=True)
class Entry:
    """Hold a registered component or family and the distribution it comes from."""

    kind: Kind
    component: Component
    provider: Provider

    @property
    def name(self) -> str:
        return self.component.name


@dataclass(frozen=True)
class Plugin:
    """Describe an installed entry point, and whether all of it could be registered or nothing."""

    plugin: str
    provider: Provider
    seconds: float
    reason: str = ""
    """The reason why it could not be registered."""
    error: BaseException | None = None
    offered: frozenset[tuple[Kind, str]] = frozenset()
    """The components that it had offered before it failed."""

    @property
    def status(self) -> str:
        """The state: ``ok``, ``failed``, or ``slow`` (it works, but took longer than a second to load)."""
        if self.error:
            return "failed"
        return "slow" if self.seconds > SLOW_SECONDS else "ok"

    def __str__(self) -> str:
        return f"{self.plugin} of {self.provider}"

    def meant_by(self, kind: Kind, name: str) -> bool:
        """Decide whether ``name`` refers to a component of this plugin."""
        own = {canonical(self.plugin), canonical(self.provider.distribution)}
        bare = _within(self.provider, name)
        return bare != name or (kind, name) in self.offered or canonical(name) in own


@dataclass(frozen=True)
class SelectedComponent:
    """Hold a component that somebody selected, with its record; load its factory and options on demand."""

    kind: Kind
    name: str
    """The name as it was selected, with the distribution if the user gave it."""
    spec: ComponentSpec
    provider: Provider
    of_family: bool = False
    """Whether a family has resolved the name, which may be a path."""

    @property
    def bare_name(self) -> str:
        """The name without the distribution."""
        return _within(self.provider, self.name)

    @property
    def described(self) -> str:
        """Kind, name and supplier, as messages call it."""
        return _described(self)

    @cached_property
    def factory(self) -> Callable[..., Any]:
        return _load(self.spec.factory, self)

    @property
    def package(self) -> str:
        """The top-level package of the factory."""
        factory = self.spec.factory
        if not isinstance(factory, str):
            made_of = getattr(factory, "func", factory)  # of a partial
            factory = str(getattr(made_of, "__module__", ""))
        return factory.partition(":")[0].partition(".")[0]

    @cached_property
    def options_class(self) -> type[Options]:
        declared = self.spec.options
        if declared is None:
            from ebsc_core.config.options import Options

            declared = getattr(self.factory, "Options", Options)
        return _options(declared, self)

    @cached_property
    def start(self) -> Callable[..., Any] | None:
        return _load(self.spec.start, self)


class Registry:
    """Hold all components of all installed plugins.

    Parameters
    ----------
    entry_points : iterable of (EntryPoint, Provider), optional
        The entry points to load. By default these are all installed entry points of the group ``ebsc``,
        except those that ``EBSC_DISABLE_PLUGINS`` lists (names of plugins or distributions, separated by
        commas; ``*`` means all except our own).

    Raises
    ------
    BrokenPluginError
        If a plugin cannot be registered and ``EBSC_STRICT_PLUGINS`` is set.
    """

    def __init__(self, entry_points: Iterable[tuple[EntryPoint, Provider]] | None = None) -> None:
        self.entries: list[Entry] = []
        self.plugins: list[Plugin] = []
        """All plugins that are installed and not disabled."""
        self.packages: set[str] = set()
        """The top-level packages of the plugins."""
        for entry_point, provider in installed_entry_points() if entry_points is None else entry_points:
            self._register(entry_point, provider)

    @property
    def failures(self) -> list[Plugin]:
        """The plugins that could not be registered."""
        return [plugin for plugin in self.plugins if plugin.error]

    def _register(self, entry_point: EntryPoint, provider: Provider) -> None:
        offered: list[Entry] = []
        error, reason, began = None, "", time.perf_counter()
        # Whatever a third-party module raises must affect its own plugin only.
        try:
            # Output of a plugin must not mix with the output of the command.
            with redirect_stdout(sys.stderr):
                taken = {(e.kind, e.name, e.provider) for e in self.entries}
                for kind, component in records_of(loaded(entry_point)):
                    entry = Entry(kind, component, provider)
                    offered.append(entry)
                    check_record(kind, component)
                    # In this case not even ``distribution:name`` would be unique.
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
        """Return the entries of one kind, sorted by name."""
        return sorted((e for e in self.entries if e.kind is kind), key=lambda e: e.name)

    def has_families(self, kind: Kind) -> bool:
        return not all(map(_single, self.of(kind)))

    def default(self, kind: Kind) -> str:
        """Return the name of the component that a run uses if it names none.

        The default of our own distribution wins over those of other plugins. So installing a plugin changes
        nothing for users who do not name its components.

        Raises
        ------
        ComponentError
            If no installed plugin offers a default, or several others do.
        """
        entry = self.default_entry(kind)
        claimed = any(e.name == entry.name for e in self.of(kind) if _single(e) and e is not entry)
        return f"{entry.provider.distribution}:{entry.name}" if claimed else entry.name

    def default_entry(self, kind: Kind) -> Entry:
        """Return the entry of the component that :meth:`default` names."""
        offered = [e for e in self.of(kind) if isinstance(e.component, ComponentSpec) and e.component.default]
        chosen = [e for e in offered if e.provider.distribution == OWN_DISTRIBUTION] or offered
        if len(chosen) != 1:
            names = ", ".join(f"{e.name} ({e.provider})" for e in chosen) or "none is installed"
            raise ComponentError(f"no single default {kind.words} ({names}); name one with `{kind.setting}`")
        return chosen[0]

    def conflicts(self) -> list[str]:
        """Return one line for each name that several plugins offer.

        Such a conflict causes an error only if somebody selects the name.
        """
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
        """Find the component called ``name``; ``distribution:name`` decides a conflict.

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
            self._refuse(kind, name, broken)
        return found[0]

    def _refuse(self, kind: Kind, name: str, broken: list[str]) -> NoReturn:
        """Raise the error of a name that nothing answers to; ``broken`` families might have."""
        for plugin in self.failures:
            if plugin.meant_by(kind, name):
                raise BrokenPluginError(
                    f"{name!r} belongs to plugin {plugin}, which did not load: {plugin.reason}; "
                    f"repair or update {plugin.provider.distribution}"
                ) from plugin.error
        what, near = f"unknown {kind.words} {name!r}", []
        if kind is Kind.DATA:
            readable = [entry.name for entry in self.of(kind) if not _single(entry)]
            if not broken and (described := described_path(name, readable)):
                raise UnknownComponentError(described)
            if not exists(name):
                what, near = f"there is no file, folder or data set {name!r}", near_paths(name)
        raise UnknownComponentError(f"{what}: {self.hint(name, [kind], broken, near)}")

    def options_of(self, entry: Entry) -> type[Options] | None:
        """Return the options class of a component, or of all components of a family; None if they differ."""
        if isinstance(entry.component, ComponentFamily):
            return None if entry.component.options is None else _options(entry.component.options, entry)
        return SelectedComponent(entry.kind, entry.name, entry.component, entry.provider).options_class

    def names(self, kind: Kind) -> list[str]:
        """Return every known name of one kind, including those that families list."""
        names = []
        for entry in self.of(kind):
            if isinstance(entry.component, ComponentFamily):
                with suppress(Exception, SystemExit):  # third-party code; a failure only loses suggestions
                    names.extend(_load(entry.component.names, entry)())
            else:
                names.append(entry.name)
        return names

    def _of_families(self, kind: Kind, name: str, broken: list[str]) -> list[SelectedComponent]:
        """Return the components that families offer for ``name``; add families that fail to ``broken``."""
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
            except BaseException as error:  # third-party code; other families may still match
                reason = str(error) if isinstance(error, EbscError) else told(error)
                broken.append(f"{entry.name} of {entry.provider}: {reason}")
                if strict():
                    raise BrokenPluginError(f"{broken[-1]} (EBSC_STRICT_PLUGINS is set)") from error
            else:
                if spec is not None:
                    spec = replace(spec, reference=spec.reference or entry.component.reference)
                    found.append(SelectedComponent(kind, name, spec, entry.provider, of_family=True))
        return found

    def hint(
        self, name: str, kinds: Iterable[Kind], broken: Iterable[str] = (), others: Iterable[str] = ()
    ) -> str:
        """Return advice on an unknown name: similar names, and the plugins that were not loaded.

        ``others`` are similar names that are not those of components.
        """
        known = {candidate.lower(): candidate for kind in kinds for candidate in self.names(kind)}
        near = [*others] + [known[lower] for lower in get_close_matches(name.lower(), known, n=3, cutoff=0.6)]
        hint = f"did you mean {' or '.join(near)}?" if near else "see `ebsc plugins list`"
        failed = [*map(str, self.failures), *broken]
        also = f" (not loaded: {', '.join(failed)}; see `ebsc plugins list`)" if failed else ""
        return hint + also


def _within(provider: Provider, name: str) -> str:
    """Remove the prefix ``distribution:`` from ``name`` if it names this provider."""
    distribution, colon, bare = name.partition(":")
    return bare if colon and canonical(distribution) == canonical(provider.distribution) else name


def strict() -> bool:
    """Return whether any failure of a plugin ends the command (``EBSC_STRICT_PLUGINS``)."""
    return os.environ.get("EBSC_STRICT_PLUGINS", "") not in ("", "0")


def _single(entry: Entry) -> bool:
    return isinstance(entry.component, ComponentSpec)


def _conflict(kind: Kind, name: str, providers: list[Provider]) -> str:
    bare = _within(providers[0], name)
    choices = " or ".join(f"{provider.distribution}:{bare}" for provider in providers)
    offered = ", ".join(map(str, providers))
    return f"{kind.words} {name!r} is offered by {offered}; say which: {choices}"


def _described(owner: SelectedComponent | Entry) -> str:
    return f"{owner.kind.words} {owner.name!r} of {owner.provider}"


def _load(target: Any, owner: SelectedComponent | Entry) -> Any:
    """Import ``"package.module:attribute"``; return anything else unchanged."""
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ComponentError(
            f"{_described(owner)} could not be loaded ({told(error)}); "
            f"repair or reinstall {owner.provider.distribution}"
        ) from error


def _options(declared: Any, owner: SelectedComponent | Entry) -> type[Options]:
    """Load a class of options that a record or a factory names, and check it."""
    from ebsc_core.config.options import Options

    options = _load(declared, owner)
    if not (isinstance(options, type) and issubclass(options, Options)):
        raise ComponentError(
            f"{_described(owner)}: its options must be a class derived from ebsc_core.Options"
        )
    if problem := claimed(options, owner.kind):
        raise ComponentError(f"{_described(owner)}: {problem}")
    return options

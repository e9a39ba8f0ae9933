"""Turn the name of a component in the configuration into the component, and check its options."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ebsc_core.config.flags import FLAGS
from ebsc_core.config.loading import own_settings
from ebsc_core.config.messages import describe
from ebsc_core.config.options import Options
from ebsc_core.config.schema import ComponentChoice
from ebsc_core.plugins.hookspecs import BackboneStart
from ebsc_core.plugins.installed import OWN_DISTRIBUTION
from ebsc_core.plugins.registry import Kind, Registry, SelectedComponent
from ebsc_core.plugins.validation import describe_former, former_preferences
from ebsc_core.utils.errors import ComponentError, ConfigError, EbscError, told
from ebsc_core.utils.sources import package_digest

# What these return is checked while they work, by code that knows nothing but the component.
CHECKED_LATER = (Kind.BACKBONE, Kind.OBJECTIVE, Kind.COEFFICIENTS, Kind.CLUSTERER)
# The digest of the source in a record. No option has a name like this.
SOURCE = "source code"
# Whether this is no installed copy of ebsc, whose code has a version.
IN_WORKING_COPY = (Path(__file__).parents[2] / "pyproject.toml").exists()


@dataclass(frozen=True)
class Choice:
    """Hold a component and its checked options."""

    component: SelectedComponent
    options: Options
    warnings: tuple[str, ...] = ()
    """What its author should change, a line each."""

    @property
    def name(self) -> str:
        return self.component.name

    @property
    def is_ours(self) -> bool:
        """Whether the component comes with ebsc, so that its code is known here."""
        return self.component.provider.distribution == OWN_DISTRIBUTION

    def build(self, *arguments: Any) -> Any:
        """Call the component's factory.

        Raises
        ------
        ComponentError
            If the factory raises any error that is not meant for the user, or returns something else, or
            something whose methods take other arguments.
        """
        built, kind = self._call(self.component.factory, *arguments), self.component.kind
        if kind in CHECKED_LATER:
            from ebsc_core.plugins.signatures import CONTRACTS, check_signatures

            # A run calls more methods than authors write, which the base class has; of a clusterer, only one.
            if kind is not Kind.CLUSTERER and not isinstance(built, CONTRACTS[kind]):
                raise ComponentError(
                    f"{self.component.described}: its factory returned a {type(built).__name__}, "
                    f"not an ebsc_core.{CONTRACTS[kind].__name__}"
                )
            with suppress(AttributeError):  # it may have slots; then messages name its class
                built.described_as = self.component.described
            check_signatures(built, kind)
        return built

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(self.options, *arguments)
        except (EbscError, KeyboardInterrupt):
            raise
        except BaseException as error:  # third-party code; it may even call exit
            raise ComponentError(f"{self.component.described} could not be built ({told(error)})") from error

    def build_seeded(self, seed: int, *arguments: Any) -> Any:
        """Build the component from a random state that depends on the seed alone."""
        import torch

        torch.manual_seed(seed)
        return self.build(*arguments)

    def record(self) -> dict[str, Any]:
        """Return name, provider and options as plain values, for digests.

        Of a component of another distribution, the digest of its package is added: its author may change the
        code without a new version (``pip install -e``). So it is with ours in a working copy of ebsc; there
        only the modules of its own classes count, so that components do not invalidate each other.
        """
        record: dict[str, Any] = {
            "name": self.component.bare_name,
            "from": str(self.component.provider),
            "options": self.options.identity(),
        }
        if not self.is_ours:
            record[SOURCE] = package_digest(self.component.package)
        elif IN_WORKING_COPY:
            record[SOURCE] = [package_digest(module) for module in self._modules()]
        return record

    def _modules(self) -> list[str]:
        """Return the modules of its package that define the factory and what that derives from."""
        factory = getattr(self.component.factory, "func", self.component.factory)  # of a partial
        modules = {str(made.__module__) for made in getattr(factory, "__mro__", (factory,))}
        return sorted(name for name in modules if name.partition(".")[0] == self.component.package)

    @cached_property
    def start(self) -> BackboneStart:
        """What the options of a backbone decide before it is built."""
        start = self.component.start
        return self._call(start) if start else BackboneStart()

    def without_weights(self, stored: Path) -> Choice:
        """Return the same choice for a component that gets its weights from this file afterwards."""
        return replace(self, options=self.options.without_weights(stored))


def choose(registry: Registry, kind: Kind, choice: ComponentChoice, section: str | None = None) -> Choice:
    """Return the component that a section names, or the installed default, with checked options.

    Raises
    ------
    ComponentError, ConfigError
        If the component is unknown or cannot be loaded, or if an option is unknown or has the wrong type.
    """
    component = registry.find(kind, choice.name or registry.default(kind))
    values = choice.options
    if choice.recorded:
        values = getattr(component.options_class, "former", {}) | values
    options = check_options(component, values, section or kind.section)
    component, warnings = _with_former_preferences(component)
    return Choice(component, options, warnings)


def _with_former_preferences(component: SelectedComponent) -> tuple[SelectedComponent, tuple[str, ...]]:
    """Complete the record by what the class states, with a warning: no result changes unnoticed."""
    former = former_preferences(component.kind, component.spec, component.factory)
    if not former:
        return component, ()
    completed = replace(component, spec=replace(component.spec, **former))
    return completed, (f"{component.described}: {describe_former(former)}",)


def check_options(component: SelectedComponent, values: dict[str, Any], section: str) -> Options:
    """Fill a component's options model with ``values``.

    Raises
    ------
    ComponentError
        If the options class is none.
    ConfigError
        If an option is unknown or has the wrong type.
    """
    model = component.options_class
    try:
        return model(**values)
    except ValidationError as error:
        words = component.kind.words
        for name in values:
            # Somebody who has typed a flag has misspelled nothing.
            if name not in model.model_fields and (setting := f"{section}.{name}") in FLAGS:
                raise ConfigError(
                    f"{words} {component.name!r} has no `{setting}`; leave it out, or choose a {words} that "
                    "has it"
                ) from None
        raise ConfigError(
            describe(error, model, section, own_settings(section)) + f" (for {words} {component.name!r})"
        ) from None


def packages_of(choices: Iterable[Choice]) -> dict[str, str]:
    """Return the packages of the components of other distributions, and what messages call these.

    If several components of a package are chosen, all of them are named.
    """
    others: dict[str, list[SelectedComponent]] = {}
    for component in (choice.component for choice in choices):
        if component.provider.distribution != OWN_DISTRIBUTION:
            others.setdefault(component.package, []).append(component)
    return {package: " or ".join(one.described for one in chosen) for package, chosen in others.items()}

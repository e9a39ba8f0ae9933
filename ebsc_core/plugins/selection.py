"""From the name of a part in the configuration to the part, with its options checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from ebsc_core.config.loading import own_settings
from ebsc_core.config.messages import describe
from ebsc_core.config.options import Options
from ebsc_core.config.schema import ComponentChoice
from ebsc_core.plugins.registry import Kind, Registry, SelectedComponent
from ebsc_core.plugins.validation import describe_former, former_preferences
from ebsc_core.utils.errors import ComponentError, ConfigError, EbscError, told


@dataclass(frozen=True)
class Choice:
    """A part, found, with its options checked."""

    component: SelectedComponent
    options: Options
    warnings: tuple[str, ...] = ()
    """What its author should change, a line each."""

    @property
    def name(self) -> str:
        return self.component.name

    def build(self, *arguments: Any) -> Any:
        """Call the part's factory.

        Raises
        ------
        ComponentError
            If the factory raises anything but an error meant for the user.
        """
        try:
            return self.component.factory(self.options, *arguments)
        except (EbscError, KeyboardInterrupt):
            raise
        except BaseException as error:  # a stranger's; it may even call exit
            raise ComponentError(
                f"{self.component.kind.words} {self.name!r} of {self.component.provider} could not be built "
                f"({told(error)})"
            ) from error

    def build_seeded(self, seed: int, *arguments: Any) -> Any:
        """Build with the random state that the seed alone decides, whatever was built before."""
        import torch

        torch.manual_seed(seed)
        return self.build(*arguments)

    def record(self) -> dict[str, Any]:
        """Name, provider and options as plain values, for digests and run records."""
        return {
            "name": self.component.bare_name,
            "from": str(self.component.provider),
            "options": self.options.model_dump(mode="json"),
        }


def choose(registry: Registry, kind: Kind, choice: ComponentChoice, section: str | None = None) -> Choice:
    """The part that a section names, or the installed default, with its options checked.

    Raises
    ------
    ComponentError, ConfigError
        If it is unknown or cannot be loaded, or an option is unknown or ill-typed.
    """
    component = registry.find(kind, choice.name or registry.default(kind))
    options = check_options(component, choice.options, section or kind.section)
    component, warnings = _with_former_preferences(component)
    return Choice(component, options, warnings)


def _with_former_preferences(component: SelectedComponent) -> tuple[SelectedComponent, tuple[str, ...]]:
    """Complete the record by what the class states, with a warning: no result changes unnoticed."""
    former = former_preferences(component.kind, component.spec, component.factory)
    if not former:
        return component, ()
    owner = f"{component.kind.words} {component.name!r} of {component.provider}"
    completed = replace(component, spec=replace(component.spec, **former))
    return completed, (f"{owner}: {describe_former(former)}",)


def check_options(component: SelectedComponent, values: dict[str, Any], section: str) -> Options:
    """A part's options model filled with ``values``.

    Raises
    ------
    ConfigError
        If one is unknown or ill-typed.
    """
    model = component.options_class
    if not (isinstance(model, type) and issubclass(model, Options)):
        raise ComponentError(
            f"{component.kind.words} {component.name!r} of {component.provider}: its options must be a class "
            "derived from ebsc_core.Options"
        )
    try:
        return model(**values)
    except ValidationError as error:
        raise ConfigError(
            describe(error, model, section, own_settings(section))
            + f" (for {component.kind.words} {component.name!r})"
        ) from None

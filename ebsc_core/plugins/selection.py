"""Turn the name of a component in the configuration into the component, and check its options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ebsc_core.config.loading import own_settings
from ebsc_core.config.messages import describe
from ebsc_core.config.options import Options
from ebsc_core.config.schema import PartChoice
from ebsc_core.plugins.registry import Kind, Part, Registry
from ebsc_core.utils.errors import ConfigError, EbscError, PartError, told


@dataclass(frozen=True)
class Choice:
    """Hold a component and its checked options."""

    part: Part
    options: Options

    @property
    def name(self) -> str:
        return self.part.name

    def build(self, *arguments: Any) -> Any:
        """Call the component's factory.

        Raises
        ------
        PartError
            If the factory raises any error that is not meant for the user.
        """
        try:
            return self.part.factory(self.options, *arguments)
        except (EbscError, KeyboardInterrupt):
            raise
        except BaseException as error:  # third-party code; it may even call exit
            raise PartError(
                f"{self.part.kind.words} {self.name!r} of {self.part.provider} could not be built "
                f"({told(error)})"
            ) from error

    def build_seeded(self, seed: int, *arguments: Any) -> Any:
        """Build the component from a random state that depends on the seed alone."""
        import torch

        torch.manual_seed(seed)
        return self.build(*arguments)

    def record(self) -> dict[str, Any]:
        """Return name, provider and options as plain values, for digests and run records."""
        return {
            "name": self.part.bare_name,
            "from": str(self.part.provider),
            "options": self.options.model_dump(mode="json"),
        }


def choose(registry: Registry, kind: Kind, choice: PartChoice, section: str | None = None) -> Choice:
    """Return the component that a section names, or the installed default, with checked options.

    Raises
    ------
    PartError, ConfigError
        If the component is unknown or cannot be loaded, or if an option is unknown or has the wrong type.
    """
    part = registry.find(kind, choice.name or registry.default(kind))
    return Choice(part, check_options(part, choice.options, section or kind.section))


def check_options(part: Part, values: dict[str, Any], section: str) -> Options:
    """Fill a component's options model with ``values``.

    Raises
    ------
    ConfigError
        If an option is unknown or has the wrong type.
    """
    model = part.options_class
    if not (isinstance(model, type) and issubclass(model, Options)):
        raise PartError(
            f"{part.kind.words} {part.name!r} of {part.provider}: its options must be a class derived "
            "from ebsc_core.Options"
        )
    try:
        return model(**values)
    except ValidationError as error:
        raise ConfigError(
            describe(error, model, section, own_settings(section)) + f" (for {part.kind.words} {part.name!r})"
        ) from None

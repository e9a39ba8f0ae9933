"""Define the base class of every component's options: strict, frozen, documented by docstrings."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Hold the options of one component.

    Unknown names are errors. Values are checked against their annotations. ``ebsc plugins show`` prints the
    docstring under each field.

    Examples
    --------
    >>> class MyOptions(Options):
    ...     temperature: float = 0.5
    ...     '''Softmax temperature; smaller is sharper.'''
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        ser_json_inf_nan="constants",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    former: ClassVar[dict[str, Any]] = {}
    """Values of options that were added later, as a run from before had them. A recorded run without such an
    option gets this value in place of the default, and so can be repeated."""

    def identity(self) -> dict[str, Any]:
        """Return what decides the component's results, as plain values, for digests.

        By default, these are all options. A component may leave out a path and, as long as it has no effect,
        an option that was added later: then features that were stored before are found again.
        """
        return self.model_dump(mode="json")

    def without_weights(self, stored: Path) -> Self:
        """Return options for a component of a finished run, which gets its weights afterwards.

        It need not load any, and need not find any file that the options name.

        Parameters
        ----------
        stored : Path
            The safetensors file of the run with these weights.
        """
        return self


def changed(options: BaseModel, names: Iterable[str]) -> list[str]:
    """Return those of the names whose options differ from their defaults."""
    fields = type(options).model_fields
    return [name for name in names if getattr(options, name) != fields[name].default]

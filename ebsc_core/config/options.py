"""Define the base class of every component's options: strict, frozen, documented by docstrings."""

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

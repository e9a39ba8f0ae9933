"""The base class of every part's options: strict, frozen, documented by its docstrings."""

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Options of one part.

    Unknown names are errors, values are checked against their annotations, and the docstring
    under each field is what ``ebsc plugins show`` prints.

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

"""Check that the methods of a component take the arguments that a run gives them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from ebsc_core.plugins.interfaces import Backbone, Clusterer, CoefficientModel, Objective
from ebsc_core.plugins.kinds import Kind
from ebsc_core.plugins.refusal import refuse

OURS = __name__.partition(".")[0]
CONTRACTS: dict[Kind, type] = {
    Kind.BACKBONE: Backbone,
    Kind.OBJECTIVE: Objective,
    Kind.COEFFICIENTS: CoefficientModel,
    Kind.CLUSTERER: Clusterer,
}


def check_signatures(component: object, kind: Kind) -> None:
    """Check the methods that a component has written itself; a call of another form would fail in our code.

    Raises
    ------
    ComponentError
        If one of them cannot be called with the arguments of its contract.
    """
    for name, arguments in _called(component, kind):
        method = getattr(component, name, None)
        try:
            given = inspect.signature(method)  # type: ignore[arg-type]
        except (TypeError, ValueError):  # missing, or compiled: only a call can tell
            continue
        try:
            given.bind(*arguments)
        except TypeError as error:
            code = getattr(inspect.unwrap(method), "__code__", None)  # type: ignore[arg-type]
            place = f" ({code.co_filename}, line {code.co_firstlineno})" if code else ""
            wanted = f"{name}({', '.join(arguments)})"
            refuse(component, kind, f"a run calls {wanted}, and its {name} does not allow it: {error}{place}")


def _called(component: object, kind: Kind) -> Iterator[tuple[str, list[str]]]:
    """Yield the methods of the contract that a component replaces, with the arguments that they get."""
    ours = [base for base in type(component).__mro__ if base.__module__.partition(".")[0] == OURS]
    for base in dict.fromkeys([*ours, CONTRACTS[kind]]):
        for name, stated in vars(base).items():
            if not inspect.isfunction(stated) or name.startswith("_"):
                continue
            if getattr(type(component), name, None) is not stated:
                arguments = list(inspect.signature(stated).parameters.values())[1:]
                yield name, [argument.name for argument in arguments if argument.default is argument.empty]

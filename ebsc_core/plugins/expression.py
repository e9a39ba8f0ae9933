"""Have a trainable coefficient model express rows, and check what it returns."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import Tensor

from ebsc_core.plugins.interfaces import Expression, TrainableCoefficientModel
from ebsc_core.plugins.kinds import Kind
from ebsc_core.plugins.refusal import refuse, require_loss


def expression_of(
    model: TrainableCoefficientModel, queries: Tensor, dictionary: Tensor, own: Tensor
) -> Expression:
    """Return how a model expresses queries by a dictionary.

    Whether the numbers are finite is seen in the loss: here a GPU would be waited for in each step.

    Raises
    ------
    ComponentError
        If it returns no :class:`Expression` of these shapes.
    """

    def fail(what: str) -> NoReturn:
        refuse(model, Kind.COEFFICIENTS, f"express returned {what}")

    found: Any = model.express(queries, dictionary, own)
    if not isinstance(found, Expression):
        fail(f"a {type(found).__name__}, not ebsc_core.Expression")
    parts: dict[str, tuple[Any, tuple[int, ...]]] = {
        "reconstruction": (found.reconstruction, tuple(queries.shape)),
        "penalty": (found.penalty, ()),
    }
    for name, (part, shape) in parts.items():
        if not isinstance(part, Tensor):
            fail(f"a {name} that is a {type(part).__name__}, not a tensor")
        if part.shape != shape:
            fail(f"a {name} of shape {tuple(part.shape)}, not {shape}")
        if not part.is_floating_point():
            fail(f"a {name} of type {part.dtype}, not torch.float32")
    return found


def loss_of(model: TrainableCoefficientModel, queries: Tensor, expression: Expression) -> Tensor:
    """Return the loss of an expression.

    Raises
    ------
    ComponentError
        If it is none that can be minimised.
    """
    return require_loss(model.loss(queries, expression), model, Kind.COEFFICIENTS)

"""Refuse what a component of another author is or returns."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from ebsc_core.plugins.kinds import Kind
from ebsc_core.utils.errors import ComponentError


def refuse(component: object, kind: Kind, problem: str) -> NoReturn:
    """Raise a ComponentError that names the component, with its supplier if a registry has built it."""
    # A component that no registry has built is known by its class only.
    owner = getattr(component, "described_as", "") or f"{kind.words} {type(component).__name__}"
    raise ComponentError(f"{owner}: {problem}")


def require_loss(loss: Any, component: object, kind: Kind) -> Tensor:
    """Return the loss that a component has computed.

    Raises
    ------
    ComponentError
        If it cannot be minimised.
    """
    if not isinstance(loss, Tensor):
        refuse(component, kind, f"its loss is a {type(loss).__name__}, not a tensor")
    if loss.ndim:
        refuse(component, kind, f"its loss has shape {tuple(loss.shape)}; it must be a scalar")
    if torch.is_grad_enabled() and not loss.requires_grad:
        refuse(component, kind, "its loss has no gradient, so nothing can be trained")
    return loss

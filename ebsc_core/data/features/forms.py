"""Map rows to the form in which they express one another: as they are, or whitened in one of two ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from ebsc_core.data.features.neighbor_whitening import NeighborWhitening
from ebsc_core.data.features.rows import Rows
from ebsc_core.data.features.whitening import Whitening

WhitenForm = Literal[True, False, "neighbors"]
ROW_FORMS: dict[WhitenForm, str] = {False: "plain", True: "whitened", "neighbors": "neighbour-whitened"}
"""What each form is called in messages."""


def row_form(rows: Rows, whiten: WhitenForm, seed: int) -> Callable[[Tensor], Tensor]:
    """Return the map of unit-length rows ``(B, D)`` to their form, learned from ``rows``.

    With ``"neighbors"`` the form has twice the width, :func:`form_width`.
    """
    if whiten == "neighbors":
        return NeighborWhitening(rows, seed=seed)
    return Whitening(rows) if whiten else _unchanged


def form_width(width: int, whiten: WhitenForm) -> int:
    """Return the width of the form of rows of this width."""
    return 2 * width if whiten == "neighbors" else width


def _unchanged(rows: Tensor) -> Tensor:
    return rows

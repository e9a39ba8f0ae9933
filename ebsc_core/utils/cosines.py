"""Tell which of the nearest rows are related to a row at all."""

from __future__ import annotations

from torch import Tensor

# In real data, plain or whitened, none of the nearest rows is below this share.
FAR = 0.1


def related(nearest: Tensor, share: float = FAR) -> Tensor:
    """Return which of the nearest rows count, bool ``(B, k)``, from their cosines ``(B, k)`` in any order.

    A row counts if its cosine is above this share of the nearest row's: a row of a small separate piece has
    few neighbours. All rows count if no cosine is positive. A common factor of a row's cosines does not
    matter.
    """
    first = nearest.amax(dim=1, keepdim=True)
    return (nearest > share * first) | (first <= 0)

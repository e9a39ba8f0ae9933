"""Tell which of the nearest rows are related to a row at all."""

from __future__ import annotations

from torch import Tensor

# A row whose cosine is below this share of the nearest one's is no neighbour. In real data, plain or
# whitened, none of the nearest rows is. A row of a small separate piece has few neighbours.
FAR = 0.1


def related(nearest: Tensor) -> Tensor:
    """Return which of the nearest rows count, bool ``(B, k)``, from their cosines ``(B, k)`` in any order.

    All count if no cosine is positive. A common factor of a row's cosines does not matter.
    """
    first = nearest.amax(dim=1, keepdim=True)
    return (nearest > FAR * first) | (first <= 0)

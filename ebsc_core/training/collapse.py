"""Detect a collapse of the representation by its effective rank, and describe it in words."""

from __future__ import annotations

# The joint phase may cost some rank, but to lose more than half of the rank before it is not normal.
KEPT_SHARE = 0.5


def collapse_warning(
    rank: float, rows: int, width: int, n_clusters: int, rank_before_joint: float | None
) -> str | None:
    """Return a sentence if ``rank`` is too low to separate ``n_clusters``, or fell in the joint phase.

    ``rank`` is the effective rank of ``rows`` rows of ``width`` entries, so it cannot exceed either number.
    """
    if rank < min(n_clusters, rows, width) / 2:
        cure = (
            "lower joint.weight"
            if rank_before_joint is not None
            else "train longer, use larger batches or another objective"
        )
        return (
            f"the representation has collapsed: its effective rank is {rank:.1f} of {width}, fewer than "
            f"half the directions {n_clusters} clusters need; {cure}"
        )
    if rank_before_joint is not None and rank < KEPT_SHARE * rank_before_joint:
        return (
            f"the joint phase is collapsing the representation: effective rank {rank:.1f} of {width}, "
            f"{rank_before_joint:.1f} before it; lower joint.weight"
        )
    return None

"""Measure how many directions rows use."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def effective_rank(rows: Tensor) -> float:
    """Return the exponential of the entropy of the normalised singular values of ``(B, E)`` rows.

    The value lies between 1 (all rows parallel) and ``min(B, E)``. Source: Roy and Vetterli, "The effective
    rank", EUSIPCO 2007; as a monitor of self-supervised training, RankMe (arXiv:2210.02885).
    """
    singular = torch.linalg.svdvals(rows.detach().float())
    share = singular / singular.sum().clamp_min(torch.finfo(torch.float32).tiny)
    return float(torch.special.entr(share).sum().exp())

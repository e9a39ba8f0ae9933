"""SimCLR: contrast each image's two views with all other images of the batch."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ebsc_core import Objective, ProjectorOptions


class SimCLROptions(ProjectorOptions):
    """Options of SimCLR."""

    temperature: float = Field(0.2, gt=0)
    """Softmax temperature of the similarities; smaller weighs near negatives more. The paper tunes
    it (0.5 for CIFAR-10 at batch 256 and more); 0.2 is the usual choice of later recipes."""


class SimCLR(Objective):
    """NT-Xent (Chen et al., arXiv:2002.05709, eq. 1): the other view against ``2B - 2`` negatives."""

    Options = SimCLROptions

    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        return nt_xent(a, b, self.options.temperature)


def nt_xent(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Normalised-temperature cross-entropy of unit-length ``(B, E)`` rows; row i matches row i.

    Raises
    ------
    ValueError
        If the two views do not have the same shape.
    """
    if a.shape != b.shape:
        raise ValueError(f"views of different shapes: {tuple(a.shape)} and {tuple(b.shape)}")
    n = len(a)
    rows = torch.cat([a, b])
    similarity = rows @ rows.T / temperature
    similarity = similarity.masked_fill(torch.eye(2 * n, dtype=torch.bool, device=a.device), -torch.inf)
    partner = torch.arange(2 * n, device=a.device).roll(n)
    return F.cross_entropy(similarity, partner)

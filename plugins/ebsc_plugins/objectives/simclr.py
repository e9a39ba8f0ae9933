"""Train with SimCLR: contrast each image's two views with all other images of the batch."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ebsc_core import Objective, ProjectorOptions


class SimCLROptions(ProjectorOptions):
    """Configure SimCLR."""

    temperature: float = Field(0.2, gt=0)
    """The softmax temperature of the similarities; a smaller one gives near negatives more weight. The
    paper tunes it (0.5 for CIFAR-10 at batch size 256 and more); later recipes usually use 0.2. 0.5 was
    better for few broad classes of many photographs, 0.2 for small sets (docs/experiments/training.md)."""


class SimCLR(Objective):
    """Contrast the other view with ``2B - 2`` negatives: NT-Xent (Chen et al., arXiv:2002.05709, eq. 1)."""

    Options = SimCLROptions

    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        return nt_xent(a, b, self.options.temperature)


def nt_xent(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Compute the normalised-temperature cross-entropy of unit-length ``(B, E)`` rows; row i matches row i.

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

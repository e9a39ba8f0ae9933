"""Barlow Twins: each embedding dimension agrees across views and differs from all others."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ebsc_core import Objective, ProjectorOptions


class BarlowTwinsOptions(ProjectorOptions):
    """Options of Barlow Twins."""

    hidden: int = Field(1024, ge=1)
    """Width of the projector's two hidden layers (the paper: 8192)."""
    width: int = Field(512, ge=1)
    """Width E of the embeddings. Wider is better, the paper finds, and takes 8192."""
    redundancy: float = Field(5e-3, ge=0)
    """Weight of the redundancy between dimensions against their agreement across views: the paper's λ."""


class BarlowTwins(Objective):
    """Zbontar et al., arXiv:2103.03230, eqs. 1-2.

    Each dimension is standardised over the batch, so that only how images differ in it counts: neither
    length nor offset. A reconstruction therefore agrees as it is, though of other length than projections.
    """

    Options = BarlowTwinsOptions
    compares = "projections"
    projector_layers = 3

    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        return barlow_twins(a, b, self.options.redundancy)


def barlow_twins(a: Tensor, b: Tensor, redundancy: float) -> Tensor:
    """Squared distance of the views' cross-correlation ``(E, E)`` from the identity; ``a``, ``b`` ``(B, E)``.

    Off the diagonal it counts ``redundancy`` times.
    """
    correlation = standardize(a).T @ standardize(b) / len(a)
    own = correlation.diagonal()
    others = correlation.square().sum() - own.square().sum()
    return (1 - own).square().sum() + redundancy * others


def standardize(rows: Tensor) -> Tensor:
    """Rows ``(B, E)`` with mean 0 and variance 1 in each dimension; a constant dimension becomes 0."""
    return F.batch_norm(rows, None, None, training=True)

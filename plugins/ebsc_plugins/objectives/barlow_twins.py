"""Train with Barlow Twins: each embedding dimension agrees across views and differs from all others."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ebsc_core import Objective, ProjectorOptions


class BarlowTwinsOptions(ProjectorOptions):
    """Configure Barlow Twins."""

    hidden: int = Field(1024, ge=1)
    """The width of the projector's two hidden layers; the paper uses 8192."""
    width: int = Field(512, ge=1)
    """The width E of the embeddings; the paper finds that wider is better, and uses 8192."""
    redundancy: float = Field(5e-3, ge=0)
    """The weight of redundancy between dimensions relative to agreement across views: the paper's λ."""


class BarlowTwins(Objective):
    """Implement Barlow Twins (Zbontar et al., arXiv:2103.03230, eqs. 1-2).

    The loss standardises each dimension over the batch, so it depends only on the differences between
    images, not on the length or the offset of their projections.
    """

    Options = BarlowTwinsOptions
    compares = "projections"
    projector_layers = 3

    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        return barlow_twins(a, b, self.options.redundancy)


def barlow_twins(a: Tensor, b: Tensor, redundancy: float) -> Tensor:
    """Compute the squared distance of the views' cross-correlation ``(E, E)`` from the identity.

    The views ``a`` and ``b`` are ``(B, E)``. Entries off the diagonal have the weight ``redundancy``.
    """
    correlation = standardize(a).T @ standardize(b) / len(a)
    own = correlation.diagonal()
    others = correlation.square().sum() - own.square().sum()
    return (1 - own).square().sum() + redundancy * others


def standardize(rows: Tensor) -> Tensor:
    """Scale rows ``(B, E)`` to mean 0 and variance 1 in each dimension; a constant dimension becomes 0."""
    return F.batch_norm(rows, None, None, training=True)

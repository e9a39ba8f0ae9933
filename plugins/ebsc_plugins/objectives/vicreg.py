"""Train with VICReg: views agree, dimensions vary (variance) and are uncorrelated (covariance)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ebsc_core import Objective, ProjectorOptions

# This value is added to the variance before the root, whose gradient at 0 is infinite. The paper uses it,
# too.
TINY_VARIANCE = 1e-4


class VICRegOptions(ProjectorOptions):
    """Configure VICReg; the weights have the paper's default values."""

    hidden: int = Field(1024, ge=1)
    """The width of the projector's two hidden layers; the paper uses 8192."""
    width: int = Field(512, ge=1)
    """The width E of the embeddings; the paper finds that wider is better, and uses 8192."""
    invariance: float = Field(25.0, ge=0)
    """The weight λ of the squared distance between the views."""
    variance: float = Field(25.0, ge=0)
    """The weight μ of the dimensions whose standard deviation is below 1."""
    covariance: float = Field(1.0, ge=0)
    """The weight ν of the squared covariances between dimensions."""


class VICReg(Objective):
    """Implement VICReg (Bardes, Ponce, LeCun, arXiv:2105.04906, eqs. 1-6).

    The invariance is a mean over dimensions, and the variance is a mean over views, while eqs. 5 and 6 have
    sums. This follows the authors' code, which uses the published weights, too.
    """

    Options = VICRegOptions
    compares = "projections"
    projector_layers = 3

    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        return vicreg(a, b, self.options.invariance, self.options.variance, self.options.covariance)


def vicreg(a: Tensor, b: Tensor, invariance: float, variance: float, covariance: float) -> Tensor:
    """Compute the weighted sum of the three terms (eq. 6) for the views' projections ``(B, E)``."""
    flat = (flatness(a) + flatness(b)) / 2
    repeated = repetition(a) + repetition(b)
    return invariance * F.mse_loss(a, b) + variance * flat + covariance * repeated


def flatness(rows: Tensor) -> Tensor:
    """Compute how far standard deviations of ``(B, E)`` rows are below 1, averaged over E (eqs. 1-2)."""
    return F.relu(1 - torch.sqrt(rows.var(dim=0) + TINY_VARIANCE)).mean()


def repetition(rows: Tensor) -> Tensor:
    """Sum the squared off-diagonal covariances ``(E, E)`` of ``(B, E)`` rows, over ``E`` (eqs. 3-4)."""
    centered = rows - rows.mean(dim=0)
    covariance = centered.T @ centered / (len(rows) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / rows.shape[1]

"""VICReg: views agree (invariance), dimensions vary (variance) and do not repeat each other (covariance)."""

from __future__ import annotations

from math import sqrt

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ebsc_core import Objective, ProjectorOptions

# Inside the root of the standard deviation, whose gradient at 0 is infinite; the paper's value.
TINY_VARIANCE = 1e-4


class VICRegOptions(ProjectorOptions):
    """Options of VICReg; weights and their default values are the paper's."""

    hidden: int = Field(1024, ge=1)
    """Width of the projector's two hidden layers (the paper: 8192)."""
    width: int = Field(512, ge=1)
    """Width E of the embeddings. Wider is better, the paper finds, and takes 8192."""
    invariance: float = Field(25.0, ge=0)
    """Weight λ of the squared distance between the views."""
    variance: float = Field(25.0, ge=0)
    """Weight μ of the dimensions whose standard deviation is below 1."""
    covariance: float = Field(1.0, ge=0)
    """Weight ν of the squared covariances between dimensions."""


class VICReg(Objective):
    """Bardes, Ponce, LeCun, arXiv:2105.04906, eqs. 1-6.

    The invariance is a mean over dimensions and the variance one over views, as in the authors' code, where
    the published weights stand too; eqs. 5 and 6 have sums.
    """

    Options = VICRegOptions
    compares = "projections"
    projector_layers = 3

    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        return vicreg(a, b, self.options.invariance, self.options.variance, self.options.covariance)

    def agreement(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """Of rows of length √E: only those can have a standard deviation of 1 in each dimension."""
        reach = sqrt(self.width)
        return self.loss(reach * F.normalize(reconstruction, dim=1), reach * target)


def vicreg(a: Tensor, b: Tensor, invariance: float, variance: float, covariance: float) -> Tensor:
    """Weighted sum of the three terms (eq. 6) of the views' projections ``(B, E)``."""
    flat = (flatness(a) + flatness(b)) / 2
    repeated = repetition(a) + repetition(b)
    return invariance * F.mse_loss(a, b) + variance * flat + covariance * repeated


def flatness(rows: Tensor) -> Tensor:
    """How far standard deviations of ``(B, E)`` rows fall short of 1, mean over dimensions (eqs. 1-2)."""
    return F.relu(1 - torch.sqrt(rows.var(dim=0) + TINY_VARIANCE)).mean()


def repetition(rows: Tensor) -> Tensor:
    """Squared covariances ``(E, E)`` of ``(B, E)`` rows off the diagonal, over ``E`` (eqs. 3-4)."""
    centered = rows - rows.mean(dim=0)
    covariance = centered.T @ centered / (len(rows) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / rows.shape[1]

"""SimSiam: predict the network's own, stopped embedding of the other view."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from ebsc_core import ProjectorOptions, projector
from ebsc_plugins.objectives.predictive import PredictiveObjective


class SimSiamOptions(ProjectorOptions):
    """Options of SimSiam."""

    hidden: int = Field(512, ge=1)
    """Width of the projector's hidden layers (the paper: 2048)."""
    width: int = Field(512, ge=1)
    """Width E of the embeddings (the paper: 2048)."""
    bottleneck: int = Field(128, ge=1)
    """Width of the predictor's hidden layer; the paper takes a quarter of E, and less than E it must be."""


class SimSiam(PredictiveObjective):
    """Chen and He, arXiv:2011.10566, eqs. 1-4.

    Neither negatives nor a teacher: what keeps the embeddings from collapsing is the stopped target, with
    the batch norms. All parts share one learning rate and its decay.
    """

    Options = SimSiamOptions
    projector_layers = 3
    norms_projections = True

    def build_predictor(self) -> nn.Module:
        return projector(self.options.width, self.options.bottleneck, self.options.width)

    def targets(self, images: Tensor, embeddings: Tensor) -> Tensor:
        return embeddings.detach()

    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        """Half the negative cosine of predictions ``a`` and targets ``b``, mean over the batch."""
        return negative_cosine(a, b) / 2


def negative_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Of unit-length ``(B, E)`` rows, mean over the batch (eq. 1)."""
    return -(a * b).sum(dim=1).mean()

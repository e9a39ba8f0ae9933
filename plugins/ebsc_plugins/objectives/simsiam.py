"""Train with SimSiam: predict the network's own embedding of the other view, without its gradient."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from ebsc_core import ProjectorOptions, projector
from ebsc_plugins.objectives.predictive import PredictiveObjective


class SimSiamOptions(ProjectorOptions):
    """Configure SimSiam."""

    hidden: int = Field(512, ge=1)
    """The width of the projector's hidden layers; the paper uses 2048."""
    width: int = Field(512, ge=1)
    """The width E of the embeddings; the paper uses 2048."""
    bottleneck: int = Field(128, ge=1)
    """The width of the predictor's hidden layer. It must be less than E; the paper uses a quarter of E."""


class SimSiam(PredictiveObjective):
    """Implement SimSiam (Chen and He, arXiv:2011.10566, eqs. 1-4).

    There are no negatives and no teacher. The target without gradient and the batch norms keep the
    embeddings from collapsing. All modules share one learning rate and its decay.
    """

    Options = SimSiamOptions
    projector_layers = 3
    norms_projections = True

    def build_predictor(self) -> nn.Module:
        return projector(self.options.width, self.options.bottleneck, self.options.width)

    def targets(self, images: Tensor, embeddings: Tensor) -> Tensor:
        return embeddings.detach()

    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute half the mean negative cosine of predictions ``a`` and targets ``b``."""
        return negative_cosine(a, b) / 2


def negative_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Compute the mean negative cosine of unit-length ``(B, E)`` rows (eq. 1)."""
    return -(a * b).sum(dim=1).mean()

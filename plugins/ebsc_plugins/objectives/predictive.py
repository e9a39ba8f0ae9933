"""Provide the base of BYOL, MoCo v3 and SimSiam: a predictor, and a target without gradient."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ebsc_core import Backbone, Objective, Views, projector


class PredictiveObjective(Objective):
    """Predict the target of the other view from each view's projection, and symmetrise.

    Targets have no gradient. A subclass defines the targets and the loss of a prediction. The embeddings
    are the projections, not the predictions.
    """

    norms_projections: ClassVar[bool] = False
    """If true, the projector ends with a batch norm (without scale and shift)."""

    def __init__(self, options: Any, backbone: Backbone) -> None:
        super().__init__(options, backbone)
        if self.norms_projections:
            self.projector.append(nn.BatchNorm1d(options.width, affine=False))
        self.predictor = self.build_predictor()

    def build_predictor(self) -> nn.Module:
        """Build a head ``(B, E) -> (B, E)``, by default as wide as the projector."""
        return projector(self.options.width, self.options.hidden, self.options.width)

    def forward(self, view_a: Tensor, view_b: Tensor) -> Views:
        images = torch.cat([view_a, view_b])
        features = self.backbone(images)
        projections = self.projector(features)
        predictions = self.predict(projections)
        embeddings = F.normalize(projections.float(), dim=1)
        with torch.no_grad():
            targets = self.targets(images, embeddings)
        of_share = features, predictions, embeddings, targets
        features, predictions, embeddings, targets = map(self.ranks.gather_views, of_share)
        pa, pb = predictions.chunk(2)
        ta, tb = targets.chunk(2)
        with torch.autocast(targets.device.type, enabled=False):  # see Objective.forward
            loss = self.loss(pa, tb) + self.loss(pb, ta)
        fa, fb = features.chunk(2)
        za, zb = embeddings.chunk(2)
        return Views(loss, (fa, fb), (za, zb))

    def predict(self, projections: Tensor) -> Tensor:
        """Predict targets as unit-length rows ``(B, E)``, from projections of any length."""
        return F.normalize(self.predictor(projections).float(), dim=1)

    @abstractmethod
    def targets(self, images: Tensor, embeddings: Tensor) -> Tensor:
        """Compute unit-length targets ``(2B, E)``, without gradient.

        The inputs are images ``(2B, C, H, W)`` and their embeddings.
        """

    @abstractmethod
    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the scalar loss of unit-length predictions ``a`` and targets ``b``, each ``(B, E)``.

        This is the loss of one direction.
        """

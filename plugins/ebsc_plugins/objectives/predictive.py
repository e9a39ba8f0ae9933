"""What BYOL, MoCo v3 and SimSiam share: a predictor on one side, a stopped target on the other."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ebsc_core import Backbone, Objective, Views, projector


class PredictiveObjective(Objective):
    """Predict from each view's projection the target that the other view gives, and symmetrise.

    Targets pass no gradient. A subclass says where they come from and how a prediction is scored. The
    embeddings it offers are its projections, not its predictions.
    """

    norms_projections: ClassVar[bool] = False
    """Whether the projector ends in a batch norm (without scale and shift)."""

    def __init__(self, options: Any, backbone: Backbone) -> None:
        super().__init__(options, backbone)
        if self.norms_projections:
            self.projector.append(nn.BatchNorm1d(options.width, affine=False))
        self.predictor = self.build_predictor()

    def build_predictor(self) -> nn.Module:
        """A head ``(B, E) -> (B, E)``, by default as wide as the projector."""
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
        """Unit-length predictions ``(B, E)`` of the target, from projections of any length."""
        return F.normalize(self.predictor(projections).float(), dim=1)

    @abstractmethod
    def targets(self, images: Tensor, embeddings: Tensor) -> Tensor:
        """Unit-length targets ``(2B, E)`` of images ``(2B, C, H, W)`` and their embeddings; no gradient."""

    @abstractmethod
    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        """Scalar score of unit-length predictions ``a`` and targets ``b``, each ``(B, E)``: one direction."""

    def agreement(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """The prediction from a reconstruction against the stopped target.

        Several processes all predict the same rows here, so a batch norm over all of them sees each row more
        than once: the same mean and variance, but for a running variance's ``n / (n - 1)``.
        """
        return self.loss(self.predict(F.normalize(reconstruction, dim=1)), target.detach())

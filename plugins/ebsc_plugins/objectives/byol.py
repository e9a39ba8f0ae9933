"""BYOL: predict a slowly moving teacher's embedding of the other view."""

from __future__ import annotations

from copy import deepcopy
from math import cos, pi

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ebsc_core.interfaces import Backbone, Objective, ProjectorOptions, Views, projector


class BYOLOptions(ProjectorOptions):
    """Options of BYOL."""

    momentum: float = Field(0.99, ge=0, lt=1)
    """Share of itself the teacher keeps at each step; rises to 1 by a cosine (the paper starts at 0.996,
    for far longer schedules)."""


class BYOL(Objective):
    """Grill et al., arXiv:2006.07733, eqs. 1-2, symmetrised.

    The embeddings it offers are the student's projections. There are no negatives: what keeps them
    from collapsing is the predictor together with the momentum teacher.
    """

    Options = BYOLOptions
    # No negatives push images apart: the embeddings lose rank, and stand little pull.
    joint_weight = 0.05
    expresses = "features"

    def __init__(self, options: BYOLOptions, backbone: Backbone) -> None:
        super().__init__(options, backbone)
        self.predictor = projector(options.width, options.hidden, options.width)
        self.teacher = nn.Sequential(deepcopy(self.backbone), deepcopy(self.projector))
        self.teacher.requires_grad_(False)
        self.step, self.total_steps = 0, 1

    def forward(self, view_a: Tensor, view_b: Tensor) -> Views:
        images = torch.cat([view_a, view_b])
        features = self.backbone(images)
        projections = self.projector(features)
        predictions = self.predict(projections)
        with torch.no_grad():
            targets = F.normalize(self.teacher(images).float(), dim=1)
        pa, pb = predictions.chunk(2)
        ta, tb = targets.chunk(2)
        loss = self.loss(pa, tb) + self.loss(pb, ta)
        fa, fb = features.chunk(2)
        za, zb = F.normalize(projections.float(), dim=1).chunk(2)
        return Views(loss, (fa, fb), (za, zb))

    def predict(self, projections: Tensor) -> Tensor:
        """Unit-length predictions ``(B, E)`` of the teacher's embedding, from projections of any length."""
        return F.normalize(self.predictor(projections).float(), dim=1)

    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        """Squared distance of predictions ``a`` and targets ``b``, ``2 - 2 cos``, mean over the batch."""
        return 2 - 2 * (a * b).sum(dim=1).mean()

    def agreement(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """The prediction from a reconstruction against the stopped target."""
        return self.loss(self.predict(F.normalize(reconstruction, dim=1)), target.detach())

    def before_training(self, total_steps: int) -> None:
        self.step, self.total_steps = 0, max(total_steps, 1)

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the teacher towards the student."""
        self.step = min(self.step + 1, self.total_steps)
        rise = (cos(pi * self.step / self.total_steps) + 1) / 2
        momentum = 1 - (1 - self.options.momentum) * rise
        student: list[Tensor] = [*self.backbone.parameters(), *self.projector.parameters()]
        teacher: list[Tensor] = list(self.teacher.parameters())
        torch._foreach_lerp_(teacher, student, 1 - momentum)

"""Provide the base of BYOL and MoCo v3: targets come from a slowly moving average of the network."""

from __future__ import annotations

from copy import deepcopy
from math import cos, pi
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ebsc_core import Backbone, ProjectorOptions
from ebsc_plugins.objectives.predictive import PredictiveObjective


class MomentumOptions(ProjectorOptions):
    """Configure an objective with a momentum teacher."""

    momentum: float = Field(0.99, ge=0, lt=1)
    """The teacher keeps this share of its weights at each step; the share rises to 1 by a cosine. MoCo v3
    uses 0.99; BYOL starts at 0.996, for far longer schedules."""


class MomentumObjective(PredictiveObjective):
    """Use the embeddings of a teacher as targets: a moving average of backbone and projector."""

    def __init__(self, options: Any, backbone: Backbone) -> None:
        super().__init__(options, backbone)
        self.teacher = nn.Sequential(deepcopy(self.backbone), deepcopy(self.projector))
        self.teacher.requires_grad_(False)
        self.step, self.total_steps = 0, 1

    def targets(self, images: Tensor, embeddings: Tensor) -> Tensor:
        return F.normalize(self.teacher(images).float(), dim=1)

    def before_training(self, total_steps: int) -> None:
        # The backbone may have fitted something to the images since it was copied.
        self.teacher[0].load_state_dict(self.backbone.state_dict())
        self.step, self.total_steps = 0, max(total_steps, 1)

    def resume(self, steps_done: int) -> None:
        self.step = steps_done

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the teacher towards the student."""
        self.step = min(self.step + 1, self.total_steps)
        rise = (cos(pi * self.step / self.total_steps) + 1) / 2
        momentum = 1 - (1 - self.options.momentum) * rise
        student: list[Tensor] = [*self.backbone.parameters(), *self.projector.parameters()]
        teacher: list[Tensor] = list(self.teacher.parameters())
        torch._foreach_lerp_(teacher, student, 1 - momentum)

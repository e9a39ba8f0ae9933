"""What BYOL and MoCo v3 share: targets from a slowly moving average of the network itself."""

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
    """Options of an objective with a momentum teacher."""

    momentum: float = Field(0.99, ge=0, lt=1)
    """Share of itself the teacher keeps at each step; rises to 1 by a cosine. 0.99 is MoCo v3's; BYOL
    starts at 0.996, for far longer schedules."""


class MomentumObjective(PredictiveObjective):
    """Targets are the embeddings of a teacher: a moving average of backbone and projector."""

    def __init__(self, options: Any, backbone: Backbone) -> None:
        super().__init__(options, backbone)
        self.teacher = nn.Sequential(deepcopy(self.backbone), deepcopy(self.projector))
        self.teacher.requires_grad_(False)
        self.step, self.total_steps = 0, 1

    def targets(self, images: Tensor, embeddings: Tensor) -> Tensor:
        return F.normalize(self.teacher(images).float(), dim=1)

    def before_training(self, total_steps: int) -> None:
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

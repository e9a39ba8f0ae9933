"""MoCo v3: pick a slowly moving teacher's embedding of the other view out of the batch."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ebsc_plugins.objectives.momentum import MomentumObjective, MomentumOptions


class MoCoV3Options(MomentumOptions):
    """Options of MoCo v3; its paper has heads of 4096 and 256."""

    temperature: float = Field(0.2, gt=0)
    """Softmax temperature of the similarities, τ. The paper takes 0.2 for ViTs and 1.0 for ResNet-50 at batch
    4096; 0.2 as in SimCLR here."""


class MoCoV3(MomentumObjective):
    """Chen, Xie, He, arXiv:2104.02057, algorithm 1, with the heads that its authors give ResNets.

    The negatives of a prediction are the teacher's embeddings of the other images' other views.
    """

    Options = MoCoV3Options
    norms_projections = True

    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        """InfoNCE of predictions ``a`` among targets ``b`` (eq. 1), times 2τ as in the paper."""
        return 2 * self.options.temperature * info_nce(a, b, self.options.temperature)


def info_nce(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of unit-length queries ``(B, E)`` choosing their own row among keys ``(B, E)``."""
    similarity = queries @ keys.T / temperature
    return F.cross_entropy(similarity, torch.arange(len(queries), device=queries.device))

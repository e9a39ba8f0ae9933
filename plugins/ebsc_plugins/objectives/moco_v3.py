"""Train with MoCo v3: identify a slowly moving teacher's embedding of the other view in the batch."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ebsc_plugins.objectives.momentum import MomentumObjective, MomentumOptions


class MoCoV3Options(MomentumOptions):
    """Configure MoCo v3; the paper uses heads of widths 4096 and 256."""

    temperature: float = Field(0.2, gt=0)
    """The softmax temperature τ of the similarities. The paper uses 0.2 for ViTs and 1.0 for ResNet-50 at
    batch size 4096. The default here is that of SimCLR."""


class MoCoV3(MomentumObjective):
    """Implement MoCo v3 (Chen, Xie, He, arXiv:2104.02057, algorithm 1), with the authors' ResNet heads.

    The negatives of a prediction are the teacher's embeddings of the other view of all other images.
    """

    Options = MoCoV3Options
    norms_projections = True

    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute InfoNCE of predictions ``a`` among targets ``b`` (eq. 1), times 2τ as in the paper."""
        return 2 * self.options.temperature * info_nce(a, b, self.options.temperature)


def info_nce(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Compute the cross-entropy of identifying each query's own row among the keys.

    Queries and keys are ``(B, E)`` and of unit length.
    """
    similarity = queries @ keys.T / temperature
    return F.cross_entropy(similarity, torch.arange(len(queries), device=queries.device))

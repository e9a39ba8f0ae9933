"""BYOL: predict a slowly moving teacher's embedding of the other view."""

from __future__ import annotations

from torch import Tensor

from ebsc_plugins.objectives.momentum import MomentumObjective, MomentumOptions


class BYOLOptions(MomentumOptions):
    """Options of BYOL."""


class BYOL(MomentumObjective):
    """Grill et al., arXiv:2006.07733, eqs. 1-2, symmetrised.

    There are no negatives: what keeps the embeddings from collapsing is the predictor together with the
    momentum teacher.
    """

    Options = BYOLOptions

    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        """Squared distance of predictions ``a`` and targets ``b``, ``2 - 2 cos``, mean over the batch."""
        return 2 - 2 * (a * b).sum(dim=1).mean()

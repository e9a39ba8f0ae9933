"""Train with BYOL: predict a slowly moving teacher's embedding of the other view."""

from __future__ import annotations

from torch import Tensor

from ebsc_plugins.objectives.momentum import MomentumObjective, MomentumOptions


class BYOLOptions(MomentumOptions):
    """Configure BYOL."""


class BYOL(MomentumObjective):
    """Implement BYOL, symmetrised (Grill et al., arXiv:2006.07733, eqs. 1-2).

    There are no negatives. The predictor and the momentum teacher keep the embeddings from collapsing.
    """

    Options = BYOLOptions

    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the mean squared distance ``2 - 2 cos`` of predictions ``a`` and targets ``b``."""
        return 2 - 2 * (a * b).sum(dim=1).mean()

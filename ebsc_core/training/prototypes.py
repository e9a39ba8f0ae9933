"""Push the clusters of a partition apart while the network trains."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 0.5


def prototype_scattering(
    a: Tensor, b: Tensor, clusters: Tensor, n_clusters: int, temperature: float = TEMPERATURE
) -> Tensor:
    """Compute the prototype scattering loss of two views (ProPos, Huang et al., arXiv:2111.11821, eq. 5).

    ``-1/K Σ_k log [exp(μ_kᵀμ'_k/τ) / Σ_{l≠k} exp(μ_kᵀμ_l/τ)]``, where ``μ_k`` is the mean direction of the
    rows of cluster k in one view and ``μ'_k`` that in the other. Both orders of the views are averaged.
    Clusters without a row in the batch are left out; with fewer than two left, the loss is 0.

    Parameters
    ----------
    a, b : Tensor of shape (B, E)
        Unit-length rows of the two views.
    clusters : Tensor of shape (B,)
        int64, the cluster of each image; -1 for images that belong to none.
    n_clusters : int
        K.
    temperature : float
        τ.

    Returns
    -------
    Tensor
        Scalar, float32. No value is read on the host.
    """
    members = (clusters[:, None] == torch.arange(n_clusters, device=clusters.device)).to(a.dtype)
    present = members.any(dim=0)
    first, second = (F.normalize(members.T @ rows, dim=1) for rows in (a, b))
    alike = (first * second).sum(dim=1) / temperature
    others = (_scatter(first, present, temperature) + _scatter(second, present, temperature)) / 2
    counted = present & (present.sum() > 1)
    return (others - alike).masked_fill(~counted, 0).sum() / counted.sum().clamp_min(1)


def _scatter(prototypes: Tensor, present: Tensor, temperature: float) -> Tensor:
    """Compute ``log Σ_{l≠k} exp(μ_kᵀμ_l/τ)`` for each k, over the clusters that are present."""
    scores = prototypes @ prototypes.T / temperature
    own = torch.eye(len(prototypes), dtype=torch.bool, device=prototypes.device)
    # Use a finite floor: log-sum-exp has no gradient in a row that is all -inf.
    return scores.masked_fill(own | ~present, torch.finfo(scores.dtype).min / 2).logsumexp(dim=1)

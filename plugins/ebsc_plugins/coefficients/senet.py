"""Compute self-expressive coefficients with SENet: soft-thresholded inner products of two networks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ebsc_core import Coefficients, Expression, Options, TrainableCoefficientModel, exclude_own

# Keys are computed for this many dictionary rows at once: each layer of the published width then takes 16
# MiB.
KEY_BLOCK = 4096


class SENetOptions(Options):
    """Configure the self-expressive network; the defaults are the published ones for MNIST."""

    hidden: int = Field(1024, gt=0)
    """The width of the hidden layers of the query and key networks."""
    layers: int = Field(3, ge=1)
    """The number of hidden layers of each network."""
    width: int = Field(1024, gt=0)
    """The width of the query and key vectors."""
    gamma: float = Field(200.0, gt=0)
    """The weight of the reconstruction error relative to the elastic-net penalty on the coefficients."""
    lmbd: float = Field(0.9, ge=0, le=1)
    """The share (lambda) of the absolute values in that penalty; half the squares have the rest."""


class SENet(TrainableCoefficientModel):
    """Compute ``c_ij = T_b(u(x_i)ᵀ v(x_j)) / E`` without ``j = i``, ``T_b(t) = sign(t) max(|t| - b, 0)``.

    This is the network of Zhang, You, Vidal, Li, "Learning a Self-Expressive Network for Subspace
    Clustering" (CVPR 2021, arXiv:2110.04318). Queries u and keys v are ReLU networks that end with a tanh,
    E is the width of both, and the threshold b is learned, starting at 0.

    The paper's results need settings of the run: ``affinity.form = "nearest_neighbors"`` with 3 neighbours,
    and spectral clustering with 15 eigenvectors. There are three differences to the paper: each step draws
    its queries at random instead of by epochs, the learning rate falls at every step instead of every
    epoch, and for more than 10,000 rows each step draws a dictionary of 10,000 rows instead of using all.
    """

    Options = SENetOptions

    def __init__(self, options: SENetOptions, width: int) -> None:
        super().__init__()
        self.options = options
        widths = [width, *[options.hidden] * options.layers, options.width]
        self.query = _network(widths)
        self.key = _network(widths)
        self.threshold = nn.Parameter(torch.tensor(0.0))

    def refinement(self) -> dict[str, Any]:
        """Return the published schedule, where Adam has no weight decay and the cosine ends at 0.

        ``[refine]`` can set other values; ``refine.steps`` makes it shorter.
        """
        return {
            "steps": 100_000,
            "rows": 10_000,
            "queries": 100,
            "lr": 1e-3,
            "weight_decay": 0.0,
            "clip": 1e-3,
        }

    def scores(self, queries: Tensor, keys: Tensor, own: Tensor) -> Tensor:
        """Compute ``u(x_i)ᵀ v(x_j)``, ``(B, N)``, of queries ``(B, D)`` and keys ``(N, E)``; 0 on own."""
        scores = self.query(queries) @ keys.T
        exclude_own(scores, own, 0)
        return scores

    def shrunk(self, scores: Tensor) -> Tensor:
        """Compute the coefficients ``T_b(scores) / E``; 0 stays 0 even if b becomes negative."""
        return scores.sign() * F.relu(scores.abs() - self.threshold) / self.options.width

    def express(self, queries: Tensor, dictionary: Tensor, own: Tensor) -> Expression:
        coefficients = self.shrunk(self.scores(queries, self.key(dictionary), own))
        lmbd = self.options.lmbd
        sizes = lmbd * coefficients.abs().sum(dim=1) + (1 - lmbd) / 2 * coefficients.square().sum(dim=1)
        return Expression(coefficients @ dictionary, sizes.mean())

    def loss(self, queries: Tensor, expression: Expression) -> Tensor:
        """Average ``γ/2 ‖x_i - Σ_j c_ij x_j‖² + Σ_j (λ|c_ij| + (1-λ)/2 c_ij²)`` over the batch."""
        error = (queries - expression.reconstruction).square().sum(dim=1).mean()
        return 0.5 * self.options.gamma * error + expression.penalty

    def encode(self, dictionary: Tensor) -> Tensor:
        return torch.cat([self.key(part) for part in dictionary.split(KEY_BLOCK)])

    def coefficients(self, queries: Tensor, encoded: Tensor, top_k: int, own: Tensor) -> Coefficients:
        scores = self.scores(queries, encoded, own)
        # |T_b(t)| grows with |t|, so the largest scores give the largest coefficients. This orders the many
        # coefficients, too, that the threshold makes 0.
        sizes = scores.abs()
        exclude_own(sizes, own)
        indices = sizes.topk(top_k, dim=1).indices
        return Coefficients(indices, self.shrunk(scores.gather(1, indices)))


def _network(widths: list[int]) -> nn.Sequential:
    """Build linear, ReLU, …, linear, tanh layers.

    Weights are Kaiming-uniform, those of the last layer Xavier-uniform; biases are 0.
    """
    linear = [nn.Linear(before, after) for before, after in pairwise(widths)]
    for layer in linear:
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    nn.init.xavier_uniform_(linear[-1].weight)
    hidden = [module for layer in linear[:-1] for module in (layer, nn.ReLU(inplace=True))]
    return nn.Sequential(*hidden, linear[-1], nn.Tanh())

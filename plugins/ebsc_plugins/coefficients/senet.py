"""SENet: self-expressive coefficients as soft-thresholded inner products of two networks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ebsc_core import Coefficients, Expression, Options, TrainableCoefficientModel, exclude_own

# Dictionary rows whose keys are computed at once: each layer of the published width then takes 16 MiB.
KEY_BLOCK = 4096


class SENetOptions(Options):
    """Options of the self-expressive network; the defaults are those published for MNIST."""

    hidden: int = Field(1024, gt=0)
    """Width of the hidden layers of the query and key networks."""
    layers: int = Field(3, ge=1)
    """Hidden layers of each."""
    width: int = Field(1024, gt=0)
    """Width of the query and key vectors."""
    gamma: float = Field(200.0, gt=0)
    """Weight of the reconstruction error against the elastic-net penalty on the coefficients."""
    lmbd: float = Field(0.9, ge=0, le=1)
    """Share (lambda) of the absolute values in that penalty; the rest falls to half the squares."""
    schedule: Literal["published", "same-budget"] = "published"
    """``published``: 100,000 steps of 100 queries over at most 10,000 rows, unless ``[refine]`` says;
    ``same-budget``: what the energy network gets."""


class SENet(TrainableCoefficientModel):
    """``c_ij = T_b(u(x_i)ᵀ v(x_j)) / E`` with ``T_b(t) = sign(t) max(|t| - b, 0)``, without ``j = i``.

    The network of Zhang, You, Vidal, Li, "Learning a Self-Expressive Network for Subspace Clustering"
    (CVPR 2021, arXiv:2110.04318): queries u and keys v are ReLU networks with a tanh at their end, E is the
    width of both, and the threshold b is learned from 0 on.

    Their results come from a graph and a cut that belong to the run: ``affinity.form = "nearest_neighbors"``
    with 3 neighbours, and spectral clustering with 15 eigenvectors. What differs here: the queries of a step
    are drawn anew instead of by epochs, the learning rate falls at every step instead of every epoch, and
    beyond 10,000 rows a step's dictionary is a draw of 10,000 instead of all.
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
        """The published schedule; Adam has no weight decay there, and its cosine ends at 0."""
        if self.options.schedule == "same-budget":
            return {}
        return {
            "steps": 100_000,
            "rows": 10_000,
            "queries": 100,
            "lr": 1e-3,
            "weight_decay": 0.0,
            "clip": 1e-3,
        }

    def scores(self, queries: Tensor, keys: Tensor, own: Tensor) -> Tensor:
        """``u(x_i)ᵀ v(x_j)`` of queries ``(B, D)`` and keys ``(N, E)``, ``(B, N)``; 0 on own."""
        scores = self.query(queries) @ keys.T
        exclude_own(scores, own, 0)
        return scores

    def shrunk(self, scores: Tensor) -> Tensor:
        """``T_b(scores) / E``: the coefficients; 0 stays 0 even if b should turn negative."""
        return scores.sign() * F.relu(scores.abs() - self.threshold) / self.options.width

    def express(self, queries: Tensor, dictionary: Tensor, own: Tensor) -> Expression:
        coefficients = self.shrunk(self.scores(queries, self.key(dictionary), own))
        lmbd = self.options.lmbd
        sizes = lmbd * coefficients.abs().sum(dim=1) + (1 - lmbd) / 2 * coefficients.square().sum(dim=1)
        return Expression(coefficients @ dictionary, sizes.mean())

    def loss(self, queries: Tensor, expression: Expression) -> Tensor:
        """``γ/2 ‖x_i - Σ_j c_ij x_j‖² + Σ_j (λ|c_ij| + (1-λ)/2 c_ij²)``, averaged over the batch."""
        error = (queries - expression.reconstruction).square().sum(dim=1).mean()
        return 0.5 * self.options.gamma * error + expression.penalty

    def encode(self, dictionary: Tensor) -> Tensor:
        return torch.cat([self.key(part) for part in dictionary.split(KEY_BLOCK)])

    def coefficients(self, queries: Tensor, encoded: Tensor, top_k: int, own: Tensor) -> Coefficients:
        scores = self.scores(queries, encoded, own)
        # |T_b(t)| grows with |t|, so that the largest scores are the largest coefficients, also among the
        # many that the threshold makes 0.
        sizes = scores.abs()
        exclude_own(sizes, own)
        indices = sizes.topk(top_k, dim=1).indices
        return Coefficients(indices, self.shrunk(scores.gather(1, indices)))


def _network(widths: list[int]) -> nn.Sequential:
    """Linear, ReLU, …, linear, tanh; Kaiming-uniform weights, Xavier-uniform for the last, biases at 0."""
    linear = [nn.Linear(before, after) for before, after in pairwise(widths)]
    for layer in linear:
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    nn.init.xavier_uniform_(linear[-1].weight)
    hidden = [module for layer in linear[:-1] for module in (layer, nn.ReLU(inplace=True))]
    return nn.Sequential(*hidden, linear[-1], nn.Tanh())

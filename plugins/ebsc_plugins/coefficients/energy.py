"""Compute self-expressive coefficients with the energy network, as a Gibbs distribution."""

from __future__ import annotations

from math import log, sqrt
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ebsc_core import Expression, InnerProductModel, Options, TrainableCoefficientModel, exclude_own


class EnergyOptions(Options):
    """Configure the energy network."""

    hidden: int = Field(512, gt=0)
    """The width of the hidden layer of the query and key networks."""
    gamma: float = Field(50.0, gt=0)
    """The weight of the reconstruction error relative to the penalty on the coefficients."""
    penalty: float = Field(0.1, ge=0)
    """The weight (lambda) of the squared coefficients. A larger weight spreads them over more rows."""
    scale: float = Field(10.0, gt=0)
    """The initial value of the inverse temperature s of the energy, which is learned."""


# Adam moves every output entry by about the learning rate, so it moves a row by √D times that. Without this
# damping, on 1,024 pixels of faces, the networks diverged to one common direction, where all coefficients
# are alike.
RESIDUAL_GAIN = 4.0


class EnergyNetwork(InnerProductModel, TrainableCoefficientModel):
    """Compute ``c_ij = a softmax_j(-E(i, j))`` without ``j = i``, from ``E(i, j) = -s q(z_i)ᵀ k(z_j)``.

    Here ``q(z) = norm(z + g Q(z))`` and ``k(z) = norm(z + g K(z))`` with ``g = 4/√D``. The last layers of Q
    and K start at zero, so the untrained network computes cosine similarity. The softmax normalises
    coefficients over the given dictionary, so a network that is trained on mini-batches applies to any
    number of rows.

    By default the network does not train: it starts on the features, whitened by their neighbours. It trains
    on them if ``refine.steps`` is given, and along with the backbone if ``joint.form`` is ``reconstruction``.

    The idea is that of arXiv:2110.15037: an energy-based network gives the coefficients, and learns from
    mini-batches, jointly with a self-supervised dictionary. This parametrisation is ours.
    """

    Options = EnergyOptions
    normalised: ClassVar[bool] = True

    def __init__(self, options: EnergyOptions, width: int) -> None:
        super().__init__()
        self.options = options
        self.gain = RESIDUAL_GAIN / sqrt(width)
        self.query = _residual_network(width, options.hidden)
        self.key = _residual_network(width, options.hidden)
        self.log_scale = nn.Parameter(torch.tensor(log(options.scale)))
        self.log_amplitude = nn.Parameter(torch.tensor(0.0))

    def graph(self) -> dict[str, Any]:
        """Prefer equal weights: Gibbs weights lose where rows are many (docs/experiments/coefficients.md)."""
        return {"form": "unweighted"}

    def refinement(self) -> dict[str, Any]:
        """Prefer no refinement: it gained on faces and lost elsewhere (docs/experiments/coefficients.md)."""
        return {"steps": 0}

    def queries(self, rows: Tensor) -> Tensor:
        """Compute ``s · q(z)``, so that an inner product with a key is the negative energy."""
        return self.log_scale.exp() * F.normalize(rows + self.gain * self.query(rows), dim=1)

    def keys(self, rows: Tensor) -> Tensor:
        """Compute ``k(z)``, of unit length."""
        return F.normalize(rows + self.gain * self.key(rows), dim=1)

    def express(self, queries: Tensor, dictionary: Tensor, own: Tensor) -> Expression:
        scores = self.queries(queries) @ self.keys(dictionary).T
        exclude_own(scores, own)
        coefficients = self.log_amplitude.exp() * scores.softmax(dim=1)
        penalty = 0.5 * self.options.penalty * coefficients.square().sum(dim=1).mean()
        return Expression(coefficients @ dictionary, penalty)

    def loss(self, queries: Tensor, expression: Expression) -> Tensor:
        """Average ``γ/2 ‖z_i - Σ_j c_ij z_j‖² + λ/2 Σ_j c_ij²`` over the batch."""
        error = (queries - expression.reconstruction).square().sum(dim=1).mean()
        return 0.5 * self.options.gamma * error + expression.penalty

    def weigh(self, scores: Tensor, normaliser: Tensor) -> Tensor:
        return self.log_amplitude.exp() * (scores - normaliser).exp()


def _residual_network(width: int, hidden: int) -> nn.Sequential:
    last = nn.Linear(hidden, width)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), last)

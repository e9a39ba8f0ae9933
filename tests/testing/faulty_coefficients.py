"""Define coefficient models with one fault each; ``FAULTS`` names the check that must find it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ebsc_core import CoefficientModel, Options, TrainableCoefficientModel
from ebsc_core.clustering.coefficients import exclude_own
from ebsc_core.clustering.inner_product import InnerProductModel
from ebsc_core.plugins.interfaces import Coefficients, Expression


class SoundModel(CoefficientModel):
    def __init__(self, options: Options, width: int) -> None:
        self.options = options

    def scores(self, queries: Tensor, encoded: Any, own: Tensor) -> Tensor:
        scores = queries @ encoded.T
        exclude_own(scores, own)
        return scores

    def coefficients(self, queries: Tensor, encoded: Any, top_k: int, own: Tensor) -> Coefficients:
        top = self.scores(queries, encoded, own).topk(top_k, dim=1)
        return Coefficients(top.indices, top.values.exp())


class UsesItself(SoundModel):
    def scores(self, queries: Tensor, encoded: Any, own: Tensor) -> Tensor:
        return queries @ encoded.T


class LooksAtTheBlock(SoundModel):
    def coefficients(self, queries: Tensor, encoded: Any, top_k: int, own: Tensor) -> Coefficients:
        found = super().coefficients(queries, encoded, top_k, own)
        return Coefficients(found.indices, found.values / found.values.sum())


class KeepsItsScores(SoundModel):
    def encode(self, dictionary: Tensor) -> Any:
        self.kept: list[Tensor] = []
        return dictionary

    def scores(self, queries: Tensor, encoded: Any, own: Tensor) -> Tensor:
        self.kept.append(super().scores(queries, encoded, own))
        return self.kept[-1]


class MultipliesInNumPy(SoundModel):
    def encode(self, dictionary: Tensor) -> Any:
        rows = dictionary.numpy()
        self.near = np.abs(rows @ rows.T) > 0.5
        return dictionary


class ShortIndices(SoundModel):
    def coefficients(self, queries: Tensor, encoded: Any, top_k: int, own: Tensor) -> Coefficients:
        found = super().coefficients(queries, encoded, top_k, own)
        return Coefficients(found.indices.int(), found.values)


class ElsewhereValues(SoundModel):
    def coefficients(self, queries: Tensor, encoded: Any, top_k: int, own: Tensor) -> Coefficients:
        found = super().coefficients(queries, encoded, top_k, own)
        return Coefficients(found.indices, found.values.to("meta"))


class ModelIgnoresTheSeed(SoundModel):
    def __init__(self, options: Options, width: int) -> None:
        super().__init__(options, width)
        self.scale = 1 + float(np.random.default_rng().random())

    def scores(self, queries: Tensor, encoded: Any, own: Tensor) -> Tensor:
        return self.scale * super().scores(queries, encoded, own)


class WantsNoGraphThereIs(SoundModel):
    def graph(self) -> dict[str, Any]:
        return {"neighbours": 3}


class WarnsInOneText(SoundModel):
    warnings_ = "It has not converged."


class ScalesInPlace(SoundModel):
    def scores(self, queries: Tensor, encoded: Any, own: Tensor) -> Tensor:
        queries *= 2
        return super().scores(queries, encoded, own)


class LeavesOutTheLast(SoundModel):
    def scores(self, queries: Tensor, encoded: Any, own: Tensor) -> Tensor:
        scores = queries @ encoded.T
        scores[torch.arange(len(own)), own] = -torch.inf
        return scores


class TakesTheBestOnly(SoundModel):
    def coefficients(self, queries: Tensor, encoded: Any, top_k: int, own: Tensor) -> Coefficients:
        best = self.scores(queries, encoded, own).max(dim=1, keepdim=True)
        return Coefficients(best.indices.expand(-1, top_k), best.values.exp().expand(-1, top_k))


class OneTooMany(SoundModel):
    def coefficients(self, queries: Tensor, encoded: Any, top_k: int, own: Tensor) -> Coefficients:
        found = super().coefficients(queries, encoded, top_k, own)
        return Coefficients(found.indices + 1, found.values)


class WeighsOtherwise(InnerProductModel):
    def __init__(self, options: Options, width: int) -> None:
        self.options = options

    def queries(self, rows: Tensor) -> Tensor:
        return rows

    def keys(self, rows: Tensor) -> Tensor:
        return rows

    def weigh(self, scores: Tensor, normaliser: Tensor) -> Tensor:
        return scores.exp()

    def coefficients(self, queries: Tensor, encoded: Any, top_k: int, own: Tensor) -> Coefficients:
        found = super().coefficients(queries, encoded, top_k, own)
        return Coefficients(found.indices, 2 * found.values)


class NeedsANormalizer(WeighsOtherwise):
    def weigh(self, scores: Tensor, normaliser: Tensor) -> Tensor:
        return (scores - normaliser).exp()

    coefficients = InnerProductModel.coefficients


class SoundLearner(TrainableCoefficientModel):
    def __init__(self, options: Options, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, width)

    def weights(self, queries: Tensor, dictionary: Tensor, own: Tensor) -> Tensor:
        scores = 5 * self.map(queries) @ dictionary.T
        exclude_own(scores, own)
        return scores.softmax(dim=1)

    def express(self, queries: Tensor, dictionary: Tensor, own: Tensor) -> Expression:
        weights = self.weights(queries, dictionary, own)
        return Expression(weights @ dictionary, weights.square().sum(dim=1).mean())

    def loss(self, queries: Tensor, expression: Expression) -> Tensor:
        error = (queries - expression.reconstruction).square().sum(dim=1).mean()
        return 10 * error + 0.1 * expression.penalty

    def coefficients(self, queries: Tensor, encoded: Any, top_k: int, own: Tensor) -> Coefficients:
        top = self.weights(queries, encoded, own).topk(top_k, dim=1)
        return Coefficients(top.indices, top.values)


class StopsTheDictionary(SoundLearner):
    def express(self, queries: Tensor, dictionary: Tensor, own: Tensor) -> Expression:
        return super().express(queries, dictionary.detach(), own)


class TrainsWithItself(SoundLearner):
    def express(self, queries: Tensor, dictionary: Tensor, own: Tensor) -> Expression:
        return super().express(queries, dictionary, torch.full_like(own, -1))


class Climbs(SoundLearner):
    def loss(self, queries: Tensor, expression: Expression) -> Tensor:
        loss = super().loss(queries, expression)
        return 2 * loss.detach() - loss


class AsksForRowGradients(SoundLearner):
    def loss(self, queries: Tensor, expression: Expression) -> Tensor:
        return super().loss(queries.requires_grad_() if queries.is_leaf else queries, expression)


class SaysItsTopK(SoundModel):
    default_top_k = 7


COEFFICIENT_FAULTS = {
    SaysItsTopK: "preferences-are-on-the-record",
    UsesItself: "zero-on-self",
    LooksAtTheBlock: "any-block-size",
    KeepsItsScores: "no-square-matrix",
    MultipliesInNumPy: "no-square-matrix",
    ShortIndices: "output-dtypes",
    ElsewhereValues: "devices",
    ModelIgnoresTheSeed: "same-seed-same-coefficients",
    WantsNoGraphThereIs: "wishes-are-settings",
    WarnsInOneText: "warnings-are-sentences",
    ScalesInPlace: "inputs-not-mutated",
    LeavesOutTheLast: "outside-queries",
    TakesTheBestOnly: "distinct-indices",
    OneTooMany: "valid-indices",
    WeighsOtherwise: "agrees-with-inner-products",
    NeedsANormalizer: "agrees-with-inner-products",
    StopsTheDictionary: "gradient-reaches-rows",
    TrainsWithItself: "expresses-as-it-trained",
    Climbs: "loss-falls",
    AsksForRowGradients: "rows-take-no-gradient",
}

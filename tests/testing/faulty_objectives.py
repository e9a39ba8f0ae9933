"""Define objectives and backbones with one fault each; ``FAULTS`` names the check that must find it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ebsc_core import Backbone, Objective, Options
from ebsc_core.plugins.interfaces import ImageInfo, ProjectorOptions, Views


class SmallOptions(ProjectorOptions):
    hidden: int = 8
    """The width of the hidden layer."""
    width: int = 4
    """The width of the embeddings."""


class SoundObjective(Objective):
    Options = SmallOptions

    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / 0.5).logsumexp(dim=1).mean() - (a * b).sum(dim=1).mean() / 0.5


class AsksForGradient(SoundObjective):
    def forward(self, view_a: Tensor, view_b: Tensor) -> Views:
        return super().forward(view_a.requires_grad_(), view_b)


class RootOfZero(SoundObjective):
    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().sum(dim=1).sqrt().mean()


class DividesByZero(SoundObjective):
    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        return 1 / (a - b).square().sum()


class Detached(SoundObjective):
    def __init__(self, options: Any, backbone: Backbone) -> None:
        super().__init__(options, backbone)
        self.projector.register_forward_pre_hook(lambda module, given: given[0].detach())


class UnusedParameter(SoundObjective):
    def __init__(self, options: Any, backbone: Backbone) -> None:
        super().__init__(options, backbone)
        self.temperature = nn.Parameter(torch.tensor(0.5))


class WorksInPlace(SoundObjective):
    def forward(self, view_a: Tensor, view_b: Tensor) -> Views:
        return super().forward(view_a.mul_(0.5), view_b)


class IgnoresTheSeed(SoundObjective):
    def __init__(self, options: Any, backbone: Backbone) -> None:
        super().__init__(options, backbone)
        with torch.no_grad():
            self.projector[0].weight += 0.1 * float(np.random.default_rng().random())


class WeighsByPosition(SoundObjective):
    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        return -((a * b).sum(dim=1) * torch.arange(1, len(a) + 1, device=a.device)).mean()


class ComparesItsShare(SoundObjective):
    def forward(self, view_a: Tensor, view_b: Tensor) -> Views:
        features = self.backbone(view_a), self.backbone(view_b)
        za, zb = self.embed(features[0]), self.embed(features[1])
        with torch.autocast("cpu", enabled=False):
            return Views(self.loss(za, zb), features, (za, zb))


class ForgetsItsState(SoundObjective):
    shift = 0.0

    def after_step(self) -> None:
        self.shift = 1.0

    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        return super().loss(a, b) + self.shift


class LongEmbeddings(SoundObjective):
    def forward(self, view_a: Tensor, view_b: Tensor) -> Views:
        found = super().forward(view_a, view_b)
        return Views(found.loss, found.features, (2 * found.embeddings[0], found.embeddings[1]))


class DoubleLoss(SoundObjective):
    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        return super().loss(a, b).double()


class LosingOptions(SmallOptions):
    sharpness: float = Field(2.0, exclude=True)
    """This option is missing in every record."""


class LosesOptions(SoundObjective):
    Options = LosingOptions


class NoNullOptions(SmallOptions):
    sharpness: float | None = 2.0
    """None is not the default, and TOML cannot express it."""


class HasNoNull(SoundObjective):
    Options = NoNullOptions


class BareOptions(SmallOptions):
    sharpness: float = 2.0


class SaysNothing(SoundObjective):
    Options = BareOptions


class LaxOptions(SmallOptions):
    model_config = SmallOptions.model_config | {"extra": "ignore"}


class TakesAnything(SoundObjective):
    Options = LaxOptions


def explodes(options: Any, backbone: Backbone) -> Objective:
    raise RuntimeError("no luck")


OBJECTIVE_FAULTS = {
    AsksForGradient: "images-take-no-gradient",
    RootOfZero: "finite-gradients",
    DividesByZero: "finite-loss",
    Detached: "gradient-reaches-backbone",
    UnusedParameter: "own-parameters-learn",
    WorksInPlace: "inputs-not-mutated",
    IgnoresTheSeed: "same-seed-same-result",
    WeighsByPosition: "order-of-images",
    ComparesItsShare: "gathers-from-all-processes",
    ForgetsItsState: "weights-survive-a-file",
    LongEmbeddings: "unit-length-embeddings",
    DoubleLoss: "output-dtypes",
    LosesOptions: "options-round-trip",
    HasNoNull: "options-round-trip",
    SaysNothing: "options-are-described",
    TakesAnything: "unknown-options-are-refused",
    explodes: "can-be-built",
}


class SoundBackbone(Backbone):
    def __init__(self, options: Options, info: ImageInfo) -> None:
        super().__init__()
        self.width = 6
        self.layer = nn.Linear(info.channels * info.height * info.width, 6)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(1))


class WrongWidth(SoundBackbone):
    def __init__(self, options: Options, info: ImageInfo) -> None:
        super().__init__(options, info)
        self.width = 7


class AlwaysDropsOut(SoundBackbone):
    def forward(self, images: Tensor) -> Tensor:
        return F.dropout(super().forward(images), 0.5, training=True)


class NeedsABatch(SoundBackbone):
    def forward(self, images: Tensor) -> Tensor:
        features = super().forward(images)
        return features - features.mean(dim=0)


class WantsOneLayout(SoundBackbone):
    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.view(len(images), -1))


class HidesAWeight(SoundBackbone):
    def __init__(self, options: Options, info: ImageInfo) -> None:
        super().__init__(options, info)
        self.scale = 1 + float(torch.rand(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * super().forward(images)


class BackboneIgnoresTheSeed(SoundBackbone):
    def __init__(self, options: Options, info: ImageInfo) -> None:
        super().__init__(options, info)
        with torch.no_grad():
            self.layer.weight += float(np.random.default_rng().random())


class NormalizesInPlace(SoundBackbone):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.sub_(0.5))


class DoubleFeatures(SoundBackbone):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).double()


class LogOfBlack(SoundBackbone):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + images.flatten(1).sum(dim=1, keepdim=True).log()


class NeverLearns(SoundBackbone):
    def forward(self, images: Tensor) -> Tensor:
        return 0 * super().forward(images)


class HalvesForInference(SoundBackbone):
    def for_inference(self) -> nn.Module:
        half = deepcopy(self)
        half.layer.weight.data /= 2
        return half


class FoldsInPlace(SoundBackbone):
    def for_inference(self) -> nn.Module:
        self.layer = nn.Sequential(self.layer)  # type: ignore[assignment]
        return self


BACKBONE_FAULTS = {
    WrongWidth: "feature-width",
    AlwaysDropsOut: "eval-is-deterministic",
    NeedsABatch: "batch-of-one",
    WantsOneLayout: "channels-last",
    HidesAWeight: "weights-survive-a-file",
    BackboneIgnoresTheSeed: "same-seed-same-weights",
    NormalizesInPlace: "inputs-not-mutated",
    DoubleFeatures: "feature-dtype",
    LogOfBlack: "finite-features",
    NeverLearns: "weights-learn",
    HalvesForInference: "inference-gives-the-same",
    FoldsInPlace: "inference-gives-the-same",
}

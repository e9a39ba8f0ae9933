"""Define clusterers and data sets with one fault each; ``FAULTS`` names the check that must find it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any, Self
from uuid import uuid4

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from ebsc_core import Clusterer, ImageSet, Options
from ebsc_core.plugins.interfaces import DataContext

calls = count()


class SoundClusterer(Clusterer):
    consumes = "features"

    def __init__(self, options: Options, n_clusters: int, seed: int) -> None:
        self.n_clusters, self.seed = n_clusters, seed

    def fit_predict(self, data: Any) -> np.ndarray:
        labels = KMeans(self.n_clusters, n_init=10, random_state=self.seed).fit_predict(data)
        return labels.astype(np.int64)


class FourAtMost(SoundClusterer):
    def __init__(self, options: Options, n_clusters: int, seed: int) -> None:
        super().__init__(options, min(n_clusters, 4), seed)


class GoesByPosition(SoundClusterer):
    def fit_predict(self, data: Any) -> np.ndarray:
        return np.arange(len(data), dtype=np.int64) * self.n_clusters // len(data)


class ShortLabels(SoundClusterer):
    def fit_predict(self, data: Any) -> np.ndarray:
        return super().fit_predict(data).astype(np.int32)


class RenumbersAtRandom(SoundClusterer):
    def fit_predict(self, data: Any) -> np.ndarray:
        return (super().fit_predict(data) + next(calls)) % self.n_clusters


class CentersInPlace(SoundClusterer):
    def fit_predict(self, data: Any) -> np.ndarray:
        data -= data.mean(axis=0)
        return super().fit_predict(data)


class CountsFromOne(SoundClusterer):
    def fit_predict(self, data: Any) -> np.ndarray:
        return super().fit_predict(data) + 1


class OneColumn(SoundClusterer):
    def fit_predict(self, data: Any) -> np.ndarray:
        return super().fit_predict(data)[:, None]


class ObeysNevertheless(SoundClusterer):
    finds_number = True


class WarnsInOneWord(SoundClusterer):
    warnings_ = "converged"


class DropsDuplicates(SoundClusterer):
    def fit_predict(self, data: Any) -> np.ndarray:
        return (
            super().fit_predict(np.unique(data, axis=0)) if len(data) > 150 - 7 else super().fit_predict(data)
        )


CLUSTERER_FAULTS = {
    FourAtMost: "as-many-as-asked-for",
    GoesByPosition: "order-of-rows",
    ShortLabels: "label-dtype",
    RenumbersAtRandom: "same-seed-same-labels",
    CentersInPlace: "inputs-not-mutated",
    CountsFromOne: "labels-from-zero",
    OneColumn: "label-shape",
    ObeysNevertheless: "number-found-itself",
    WarnsInOneWord: "warnings-are-sentences",
    DropsDuplicates: "equal-rows",
}


class SoundData(ImageSet):
    pass


class ReadOnce(ImageSet):
    def batches(self, plan: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
        if self.__dict__.get("spent"):
            return iter(())
        object.__setattr__(self, "spent", True)
        return super().batches(plan, device)


class NewDigest(ImageSet):
    def digest(self) -> str:
        return uuid4().hex


class Reshuffled(ImageSet):
    def digest(self) -> str:
        return str(len(self))


class FloatImages(ImageSet):
    def batches(self, plan: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
        return (batch.float() / 255 for batch in super().batches(plan, device))


class LabelsStay(ImageSet):
    def take(self, positions: np.ndarray) -> Self:
        assert self.labels is not None
        return replace(super().take(positions), labels=self.labels[: len(positions)])


class SameIds(ImageSet):
    pass


class InStoredOrder(ImageSet):
    def batches(self, plan: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
        return super().batches((positions.sort().values for positions in plan), device)


class WrongInfo(ImageSet):
    def info(self) -> Any:
        return replace(super().info(), mean=(127.5,))


def opener(kind: type[ImageSet]) -> Any:
    """Make a factory of twelve images of this kind."""

    def read(options: Options, context: DataContext) -> ImageSet:
        images = torch.randint(0, 256, (12, 1, 4, 5), generator=torch.Generator().manual_seed(0)).byte()
        if kind is Reshuffled:
            images = images.roll(next(calls), dims=0)
        ids = ["image"] * 12 if kind is SameIds else [str(i) for i in range(12)]
        return kind("made", images, ids, np.arange(12) % 3)

    return read


DATA_FAULTS = {
    ReadOnce: "can-be-read-again",
    NewDigest: "digest-is-stable",
    Reshuffled: "same-when-opened-again",
    FloatImages: "image-dtype",
    LabelsStay: "take-keeps-together",
    SameIds: "one-id-each",
    InStoredOrder: "any-order",
    WrongInfo: "info-fits",
}

"""Convert images to grey or to colour."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ebsc_core.data.images.source import ImageSource
from ebsc_core.plugins.interfaces import ImageInfo

# Weights of red, green and blue in ITU-R BT.601.
LUMA = (0.299, 0.587, 0.114)


class InChannels(ImageSource):
    """Convert other images to 1 (grey) or 3 (colour) channels."""

    def __init__(self, images: ImageSource, channels: int) -> None:
        self.images, self.channels = images, channels
        self.name, self.ids = images.name, images.ids
        self.labels, self.class_names = images.labels, images.class_names

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, *self.images.shape[1:])

    def __len__(self) -> int:
        return len(self.images)

    def take(self, positions: np.ndarray) -> Self:
        return type(self)(self.images.take(positions), self.channels)

    def info(self) -> ImageInfo:
        there = self.images.info()
        if there.channels == self.channels:
            return there
        weigh = np.array(LUMA) if self.channels == 1 else np.ones((3, 1))
        mean, std = (np.atleast_1d(weigh @ np.array(values)) for values in (there.mean, there.std))
        return ImageInfo(self.channels, there.height, there.width, tuple(mean), tuple(std))

    def digest(self) -> str:
        return f"{self.images.digest()} in {self.channels} channels"

    def batches(self, plan: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
        return map(self._converted, self.images.batches(plan, device))

    def to_fit(self) -> Tensor:
        return self._converted(self.images.to_fit())

    def close(self) -> None:
        self.images.close()

    def where(self) -> str:
        return self.images.where()

    def _converted(self, pixels: Tensor) -> Tensor:
        if pixels.shape[1] == self.channels:
            return pixels
        if self.channels == 3:
            return pixels.expand(-1, 3, -1, -1)
        weights = torch.tensor(LUMA, device=pixels.device).view(1, 3, 1, 1)
        return (pixels * weights).sum(1, keepdim=True).round().to(torch.uint8)

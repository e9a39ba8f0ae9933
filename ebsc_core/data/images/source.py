"""Where the images of a run come from: what every set of them can do, wherever it is kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ebsc_core.plugins.interfaces import ImageInfo
from ebsc_core.utils.errors import DataError
from ebsc_core.utils.sampling import sample_positions


class ImageSource(ABC):
    """``N`` images of one size, uint8, grey or RGB, with what is known about them."""

    name: str
    ids: Sequence[str]
    """``N`` paths or indices, as ``assignments.csv`` names the images."""
    labels: np.ndarray | None = None
    """``(N,)`` int64 classes, for scoring only."""
    class_names: tuple[str, ...] | None = None
    """What ``assignments.csv`` calls the classes, by label; the bare numbers if None."""
    waited: float = 0.0
    """Seconds that whoever took :meth:`batches` had to wait for images to be read."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of every image."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, positions: np.ndarray) -> Self:
        """The images at these positions, in this order."""

    @abstractmethod
    def info(self) -> ImageInfo:
        """Shape, and mean and standard deviation per channel."""

    @abstractmethod
    def digest(self) -> str:
        """Hash of what decides the images and their order; labels do not enter."""

    @abstractmethod
    def batches(self, plan: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
        """The images ``(B, C, H, W)`` uint8 at each of the plan's positions ``(B,)`` int64, on the device.

        The plan may be read ahead of what is taken.

        Raises
        ------
        DataError
            If an image cannot be read.
        """

    @abstractmethod
    def to_fit(self) -> Tensor:
        """Images in memory, ``(M, C, H, W)`` uint8, for :meth:`ebsc_core.plugins.interfaces.Backbone.fit`."""

    def close(self) -> None:  # noqa: B027 (most have nothing to let go of)
        """Let go of what :meth:`batches` keeps from one call to the next; another call takes it up again."""

    def where(self) -> str:
        """Where the images are if not in memory, for the run's announcement."""
        return ""

    def sample(self, limit: int | None, seed: int) -> Self:
        """A seeded sample of ``limit`` images, in their original order; all if None or enough."""
        if limit is None or limit >= len(self):
            return self
        return self.take(sample_positions(len(self), limit, seed))

    def label_names(self) -> list[str] | None:
        """The class of each image in words, if there are labels."""
        if self.labels is None:
            return None
        return [self.class_names[label] if self.class_names else str(label) for label in self.labels]

    @property
    def n_classes(self) -> int | None:
        """How many distinct labels there are, if there are labels."""
        return None if self.labels is None else len(np.unique(self.labels))

    def _check(self) -> None:
        """Raise a DataError unless the images' shape, ids and labels fit together."""
        channels, height, width = self.shape
        if channels not in (1, 3):
            raise DataError(f"{self.name}: images must have 1 or 3 channels, not {channels}")
        if not len(self):
            raise DataError(f"{self.name}: there are no images")
        if min(height, width) < 1:
            raise DataError(f"{self.name}: images have no pixels")
        if self.labels is not None and self.labels.shape != (len(self),):
            raise DataError(f"{self.name}: labels have shape {self.labels.shape}, expected ({len(self)},)")
        if self.labels is not None and self.class_names is not None:
            named = (self.labels >= 0) & (self.labels < len(self.class_names))
            if not named.all():
                raise DataError(f"{self.name}: label {self.labels[~named][0]} has no class name")


class Levels:
    """Counts the levels of pixels; exact, in whatever blocks they come."""

    def __init__(self, channels: int) -> None:
        self.counts = np.zeros((channels, 256), dtype=np.int64)

    def add(self, images: np.ndarray) -> None:
        """Count images ``(B, C, H, W)`` uint8."""
        for channel, pixels in enumerate(images.swapaxes(0, 1)):
            self.counts[channel] += np.bincount(pixels.ravel(), minlength=256)

    def info(self, height: int, width: int) -> ImageInfo:
        """Mean and standard deviation per channel, with the images' shape."""
        levels, total = np.arange(256) / 255, self.counts.sum(1)
        mean = (self.counts * levels).sum(1) / total
        variance = (self.counts * (levels - mean[:, None]) ** 2).sum(1) / total
        std = np.sqrt(np.maximum(variance, 1e-4))
        return ImageInfo(len(self.counts), height, width, tuple(mean.tolist()), tuple(std.tolist()))

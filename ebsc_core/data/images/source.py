"""Define the interface of image sources, in memory or on disk."""

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
    """Give access to ``N`` images of one size, uint8, grey or RGB, with their names and labels."""

    name: str
    ids: Sequence[str]
    """The ``N`` paths or indices with which ``assignments.csv`` names the images."""
    labels: np.ndarray | None = None
    """The classes ``(N,)`` int64, which only the scores use."""
    class_names: tuple[str, ...] | None = None
    """The names of the classes in ``assignments.csv``, by label. If None, the file holds the labels as
    numbers."""
    labels_from: str = ""
    """Where the labels come from, for the first lines of a run, e.g. ``the folders ants, bees``."""
    waited: float = 0.0
    """The seconds that callers of :meth:`batches` waited for images."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Return the shape ``(C, H, W)`` of every image."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, positions: np.ndarray) -> Self:
        """Return the images at these positions, in this order."""

    @abstractmethod
    def info(self) -> ImageInfo:
        """Return the shape, and the mean and standard deviation per channel."""

    @abstractmethod
    def digest(self) -> str:
        """Hash the data that decides the images and their order, without labels."""

    @abstractmethod
    def batches(self, plan: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
        """Yield images ``(B, C, H, W)`` uint8 on the device, for each entry ``(B,)`` int64 of the plan.

        Entries are positions. The source may read the plan ahead of the batches that the caller takes.

        Raises
        ------
        DataError
            If an image cannot be read.
        """

    @abstractmethod
    def to_fit(self) -> Tensor:
        """Return images ``(M, C, H, W)`` uint8 for :meth:`ebsc_core.plugins.interfaces.Backbone.fit`."""

    def close(self) -> None:  # noqa: B027 (most sources have nothing to release)
        """Release what :meth:`batches` keeps between calls; the next call acquires it again."""

    def where(self) -> str:
        """Describe where the images are, for the first lines of a run; empty if they are in memory."""
        return ""

    def sample(self, limit: int | None, seed: int) -> Self:
        """Return a seeded sample of ``limit`` images in their order; all if None or if there are fewer."""
        if limit is None or limit >= len(self):
            return self
        return self.take(sample_positions(len(self), limit, seed))

    def label_names(self) -> list[str] | None:
        """Return the class name of each image, or None without labels."""
        if self.labels is None:
            return None
        return [self.class_names[label] if self.class_names else str(label) for label in self.labels]

    @property
    def n_classes(self) -> int | None:
        """Return the number of distinct labels, or None without labels."""
        return None if self.labels is None else len(np.unique(self.labels))

    def _check(self) -> None:
        """Raise a DataError unless the shape, the ids and the labels of the images fit together."""
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
    """Count the levels of pixels over blocks of images, to compute exact statistics."""

    def __init__(self, channels: int) -> None:
        self.counts = np.zeros((channels, 256), dtype=np.int64)

    def add(self, images: np.ndarray) -> None:
        """Count images ``(B, C, H, W)`` uint8."""
        for channel, pixels in enumerate(images.swapaxes(0, 1)):
            self.counts[channel] += np.bincount(pixels.ravel(), minlength=256)

    def info(self, height: int, width: int) -> ImageInfo:
        """Return the mean and standard deviation per channel, with the shape of the images."""
        levels, total = np.arange(256) / 255, self.counts.sum(1)
        mean = (self.counts * levels).sum(1) / total
        variance = (self.counts * (levels - mean[:, None]) ** 2).sum(1) / total
        std = np.sqrt(np.maximum(variance, 1e-4))
        return ImageInfo(len(self.counts), height, width, tuple(mean.tolist()), tuple(std.tolist()))

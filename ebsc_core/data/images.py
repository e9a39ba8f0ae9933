"""A set of images of one size, in memory as uint8."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ebsc_core.errors import DataError
from ebsc_core.interfaces import ImageInfo


@dataclass(frozen=True)
class ImageSet:
    """``N`` images of one size, with what is known about them.

    Raises
    ------
    DataError
        If shapes, dtypes or lengths do not fit together.
    """

    name: str
    images: Tensor
    """``(N, C, H, W)`` uint8, ``C`` 1 (grey) or 3 (RGB)."""
    ids: list[str]
    """``N`` paths or indices, as ``assignments.csv`` names the images."""
    labels: np.ndarray | None = None
    """``(N,)`` int64 classes, for scoring only."""
    class_names: tuple[str, ...] | None = None
    """What ``assignments.csv`` calls the classes, by label; the bare numbers if None."""

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise DataError(
                f"{self.name}: images must be uint8 of shape (N, C, H, W), "
                f"not {self.images.dtype} of shape {tuple(self.images.shape)}"
            )
        if self.images.shape[1] not in (1, 3):
            raise DataError(f"{self.name}: images must have 1 or 3 channels, not {self.images.shape[1]}")
        if not len(self):
            raise DataError(f"{self.name}: there are no images")
        if min(self.images.shape[2:]) < 1:
            raise DataError(f"{self.name}: images have no pixels")
        if len(self.ids) != len(self):
            raise DataError(f"{self.name}: {len(self.ids)} ids for {len(self)} images")
        if self.labels is not None and self.labels.shape != (len(self),):
            raise DataError(f"{self.name}: labels have shape {self.labels.shape}, expected ({len(self)},)")
        if self.labels is not None and self.class_names is not None:
            named = (self.labels >= 0) & (self.labels < len(self.class_names))
            if not named.all():
                raise DataError(f"{self.name}: label {self.labels[~named][0]} has no class name")

    def __len__(self) -> int:
        return len(self.images)

    def label_names(self) -> list[str] | None:
        """The class of each image in words, if there are labels."""
        if self.labels is None:
            return None
        return [self.class_names[label] if self.class_names else str(label) for label in self.labels]

    @property
    def n_classes(self) -> int | None:
        """How many distinct labels there are, if there are labels."""
        return None if self.labels is None else len(np.unique(self.labels))

    def sample(self, limit: int | None, seed: int) -> ImageSet:
        """A seeded sample of ``limit`` images, in their original order; all if None or enough."""
        if limit is None or limit >= len(self):
            return self
        return self.take(sample_positions(len(self), limit, seed))

    def take(self, positions: np.ndarray) -> ImageSet:
        """The images at these positions, in this order."""
        return replace(
            self,
            images=self.images[torch.from_numpy(positions)],
            ids=[self.ids[i] for i in positions],
            labels=None if self.labels is None else self.labels[positions],
        )

    def info(self) -> ImageInfo:
        """Shape, and mean and standard deviation per channel (exact, from histograms)."""
        _, channels, height, width = self.images.shape
        counts = np.zeros((channels, 256), dtype=np.int64)
        for start in range(0, len(self), 4096):  # bincount copies to int64
            for channel, pixels in enumerate(self.images[start : start + 4096].numpy().swapaxes(0, 1)):
                counts[channel] += np.bincount(pixels.ravel(), minlength=256)
        levels = np.arange(256) / 255
        mean = (counts * levels).sum(1) / counts.sum(1)
        variance = (counts * (levels - mean[:, None]) ** 2).sum(1) / counts.sum(1)
        std = np.sqrt(np.maximum(variance, 1e-4))
        return ImageInfo(channels, height, width, tuple(mean.tolist()), tuple(std.tolist()))

    def digest(self) -> str:
        """Hash of the pixels and their order; names and labels do not enter."""
        state = hashlib.blake2b(str(tuple(self.images.shape)).encode(), digest_size=16)
        for start in range(0, len(self), 4096):
            state.update(self.images[start : start + 4096].contiguous().numpy().data)
        return state.hexdigest()


def sample_positions(n: int, limit: int | None, seed: int) -> np.ndarray:
    """Sorted positions of a seeded sample of ``limit`` out of ``n``; all of them if None."""
    if limit is None or limit >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).permutation(n)[:limit])

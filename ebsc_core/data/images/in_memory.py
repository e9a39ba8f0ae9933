"""Hold a set of images of one size in memory, as uint8."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from ebsc_core.data.images.source import ImageSource, Levels
from ebsc_core.plugins.interfaces import ImageInfo
from ebsc_core.utils.device import move
from ebsc_core.utils.errors import DataError

T = TypeVar("T")
# Weights and activations need the rest of a GPU; larger data sets stay on the host.
DEVICE_SHARE = 0.25
# Images per block: bincount copies to int64, and a hash needs contiguous memory.
BLOCK = 4096


@dataclass(frozen=True)
class ImageSet(ImageSource):
    """Hold ``N`` images of one size, with their names and labels.

    Raises
    ------
    DataError
        If the shapes, dtypes or lengths do not fit together.
    """

    name: str
    images: Tensor
    """The pixels have shape ``(N, C, H, W)``, uint8, with ``C`` 1 (grey) or 3 (RGB)."""
    ids: list[str]
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    labels_from: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.images, Tensor):
            found = type(self.images).__name__
            raise DataError(f"{self.name}: images must be a torch.Tensor, not a {found} (torch.from_numpy)")
        if self.labels is not None and not isinstance(self.labels, np.ndarray):
            found = type(self.labels).__name__
            raise DataError(f"{self.name}: labels must be a NumPy array, not a {found}")
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise DataError(
                f"{self.name}: images must be uint8 of shape (N, C, H, W), "
                f"not {self.images.dtype} of shape {tuple(self.images.shape)}"
            )
        self._check()
        if len(self.ids) != len(self):
            raise DataError(f"{self.name}: {len(self.ids)} ids for {len(self)} images")

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.images)

    def take(self, positions: np.ndarray) -> Self:
        return replace(
            self,
            images=self.images[torch.from_numpy(positions)],
            ids=[self.ids[i] for i in positions],
            labels=None if self.labels is None else self.labels[positions],
        )

    def info(self) -> ImageInfo:
        """Return the shape, and the mean and standard deviation per channel (exact, from histograms)."""
        channels, height, width = self.shape
        levels = Levels(channels)
        for block in self.images.split(BLOCK):
            levels.add(block.numpy())
        return levels.info(height, width)

    def digest(self) -> str:
        """Hash the pixels and their order, without names and labels."""
        state = hashlib.blake2b(str(tuple(self.images.shape)).encode(), digest_size=16)
        for block in self.images.split(BLOCK):
            state.update(block.contiguous().numpy().data)
        return state.hexdigest()

    def batches(self, plan: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
        chosen = (self.images[move(positions, self.images.device)] for positions in plan)
        if device.type == "cuda" and self.images.device.type == "cpu":
            # A pinned batch is copied while the device computes and a thread gathers the next batch.
            for batch in ahead(images.pin_memory() for images in chosen):
                yield batch.to(device, non_blocking=True)
        else:
            for batch in chosen:
                yield batch.to(device)

    def to_fit(self) -> Tensor:
        """Return all images."""
        return self.images


def ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield the same items; a thread prepares the next item while the caller uses the current one."""
    end = object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item  # type: ignore[misc]


def place_images(data: ImageSource, device: torch.device, note: Callable[[str], None]) -> ImageSource:
    """Move images in memory to the device as uint8, if they leave enough room there."""
    if not isinstance(data, ImageSet):
        return data
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if data.images.nbytes > DEVICE_SHARE * free:
            note("images stay in host memory: they would crowd the device")
            return data
    return replace(data, images=data.images.to(device))

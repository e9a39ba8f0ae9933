"""Stream images from disk: processes read them batch by batch, ahead of the training.

A run holds at most ``workers · AHEAD`` batches at any time, for any number of images.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ebsc_core.data.images.source import ImageSource, Levels
from ebsc_core.data.images.workers import Bad, ImageReader, Images, Workers, unreadable, warn_unreadable
from ebsc_core.plugins.interfaces import ImageInfo
from ebsc_core.utils.device import move
from ebsc_core.utils.errors import DataError
from ebsc_core.utils.sampling import sample_positions

# Before training, the run reads this many images for shape, mean and standard deviation. Decoding them
# takes a second or two. Smaller sets are read as a whole, and a run on them is then equal to a run in
# memory.
LOOKED_AT = 1024
# The largest number of images for a backbone's `fit`. Our backbones use this many by default.
FITTED = 10_000
# Threads read so many images at a time.
HERE = 64


@dataclass(eq=False)
class StreamedImages(ImageSource):
    """Read images each time a batch needs them.

    If there are more than ``LOOKED_AT`` images, mean and standard deviation are those of a sample.
    """

    name: str
    reader: ImageReader
    workers: Workers
    positions: np.ndarray
    """The positions ``(N,)`` int64 of these images among the reader's images."""
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    labels_from: str = ""
    waited: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._check()

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.reader.shape

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def ids(self) -> Sequence[str]:  # type: ignore[override]
        return [self.reader.name(int(position)) for position in self.positions]

    def where(self) -> str:
        count = self.workers.count
        by = f" by {count} process{'es' if count > 1 else ''}" if count else ""
        return f", streamed from disk{by}"

    def take(self, positions: np.ndarray) -> Self:
        labels = None if self.labels is None else self.labels[positions]
        return replace(self, positions=self.positions[positions], labels=labels)

    def readable(self, warn: Callable[[str], None]) -> Self:
        """Return the images that can be read, and warn of each image that cannot.

        The method reads all images, which takes about as long as reading them for one epoch.
        """
        plan = torch.arange(len(self)).split(256)
        bad: Bad = []
        for _, problems in self.workers.read(
            (self.positions[part.numpy()].tolist() for part in plan), pin=False
        ):
            bad += problems
        self.workers.close()  # training may start processes that pin their batches
        warn_unreadable([(self.reader.where(position), reason) for position, reason in bad], warn)
        if len(bad) == len(self):
            raise DataError(f"{self.name} holds no readable image")
        return self.take(np.flatnonzero(~np.isin(self.positions, [position for position, _ in bad])))

    def info(self) -> ImageInfo:
        return self._looked_at[0]

    def digest(self) -> str:
        """Hash a listing of the files and the pixels of a sample.

        The hash differs from that of the same images in memory.
        """
        state = hashlib.blake2b(str((len(self), *self.shape)).encode(), digest_size=16)
        state.update(self.reader.mark(self.positions))
        state.update(self._looked_at[1])
        return f"listing-1-{state.hexdigest()}"

    @cached_property
    def _looked_at(self) -> tuple[ImageInfo, bytes]:
        """Return the statistics of a sample and a hash of its pixels."""
        channels, height, width = self.shape
        levels, state = Levels(channels), hashlib.blake2b(digest_size=16)
        for images in self._read_here(sample_positions(len(self), LOOKED_AT, seed=0)):
            levels.add(images)
            state.update(images.data)
        return levels.info(height, width), state.digest()

    def to_fit(self) -> Tensor:
        """Return all images, or ``FITTED`` evenly spaced ones if there are more."""
        most = min(len(self), FITTED)
        chosen = np.rint(np.linspace(0, len(self) - 1, most)).astype(np.int64)
        images = torch.empty(most, *self.shape, dtype=torch.uint8)
        done = 0
        for block in self._read_here(chosen):
            images[done : done + len(block)] = torch.from_numpy(block)
            done += len(block)
        return images

    def _read_here(self, chosen: np.ndarray) -> Iterator[np.ndarray]:
        """Read few images in blocks with threads, which start faster than processes."""
        positions = self.positions[chosen].tolist()
        dataset = Images(self.reader)
        with ThreadPoolExecutor() as pool, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoders warn of unusual but readable files
            for start in range(0, len(positions), HERE):
                block = positions[start : start + HERE]
                read = pool.map(lambda position: dataset.__getitems__([position]), block)
                images, bad = zip(*read, strict=True)
                self._refuse([problem for problems in bad for problem in problems])
                yield torch.cat(images).numpy()

    def batches(self, plan: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
        chosen = (self.positions[positions.numpy()].tolist() for positions in plan)
        running = self.workers.running
        read = self.workers.read(chosen, pin=device.type == "cuda")
        while True:
            start = time.perf_counter()
            batch = next(read, None)
            if running:  # otherwise, starting the processes took the time
                self.waited += time.perf_counter() - start
            running = True
            if batch is None:
                return
            images, bad = batch
            if bad:
                self.close()
            self._refuse(bad)
            yield move(images, device)

    def close(self) -> None:
        self.workers.close()

    def _refuse(self, bad: Bad) -> None:
        if bad:
            raise unreadable(self.reader.where(bad[0][0]), bad[0][1], len(bad))

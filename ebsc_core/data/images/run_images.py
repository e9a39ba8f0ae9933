"""Hold the images of a run, fitted and held out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from ebsc_core.data.images.source import ImageSource
from ebsc_core.data.images.workers import none_left_out

BATCH = 64


@dataclass(frozen=True)
class RunImages:
    """Hold the images in the order of ``assignments.csv``: the fitted ones, then the held-out ones."""

    fitted: ImageSource
    held_out: ImageSource | None = None
    again: bool = False
    """Whether a run was made of these images before, so that none may be left out."""

    @property
    def parts(self) -> list[ImageSource]:
        return [self.fitted, *([self.held_out] if self.held_out else [])]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def ids(self) -> Iterator[str]:
        return chain.from_iterable(part.ids for part in self.parts)

    def read(self, positions: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Read the images at these positions in batches, in the fastest order.

        Yields
        ------
        which : ndarray of shape (B,)
            Indices into ``positions``.
        images : ndarray of shape (B, C, H, W), uint8

        Raises
        ------
        DataError
            If an image cannot be read.
        """
        start = 0
        for part in self.parts:
            inside = np.flatnonzero((positions >= start) & (positions < start + len(part)))
            plan = [inside[i : i + BATCH] for i in range(0, len(inside), BATCH)]
            wanted = [torch.from_numpy(positions[which] - start) for which in plan]
            with closing(part), none_left_out() if self.again else nullcontext():
                for which, images in zip(plan, part.batches(wanted, torch.device("cpu")), strict=True):
                    yield which, images.numpy()
            start += len(part)

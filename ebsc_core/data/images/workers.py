"""The processes that read images ahead of whoever uses them, and what they read with."""

from __future__ import annotations

import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ebsc_core.utils.errors import DataError
from ebsc_core.utils.system import processors

# Batches each process has begun or finished before they are asked for.
AHEAD = 2
# More processes than this seldom find a disk that feeds them.
MAX_WORKERS = 8

Bad = list[tuple[int, str]]
"""Positions of images that could not be read, each with the reason."""


class BadImage(Exception):
    """An image cannot be read; its text says why in a few words."""


def unreadable(where: str, reason: str, count: int) -> DataError:
    """What is said of ``count`` images that cannot be read, by the first."""
    more = f" and {count - 1} more" if count > 1 else ""
    return DataError(
        f"cannot read image {where}{more} ({reason}); repair or remove it, or pass --skip-bad-images"
    )


class ImageReader(ABC):
    """Reads images one by one, in whichever process it finds itself.

    It is pickled into each process, so it holds tensors (which are shared) rather than many objects, and
    opens what it reads from when it reads.
    """

    shape: tuple[int, int, int]
    """``(C, H, W)`` of every image."""

    @abstractmethod
    def name(self, position: int) -> str:
        """What ``assignments.csv`` calls an image."""

    @abstractmethod
    def where(self, position: int) -> str:
        """Where an image lies, on one printable line, for a message."""

    @abstractmethod
    def read(self, position: int) -> np.ndarray:
        """An image ``(C, H, W)`` uint8.

        Raises
        ------
        BadImage
            If it is damaged or missing.
        """

    @abstractmethod
    def mark(self, positions: np.ndarray) -> bytes:
        """What tells these images from others without reading them: names, sizes, times or checksums."""


class Workers:
    """The processes that read for one reader: started when first needed, kept from one pass to the next.

    Parameters
    ----------
    reader : ImageReader
    count : int, optional
        How many; by default one less than there are processors, from 1 to 8. With 0 this process reads.
    """

    def __init__(self, reader: ImageReader, count: int | None = None) -> None:
        self.reader = reader
        self.count = min(MAX_WORKERS, max(1, processors() - 1)) if count is None else count
        self.plan = _Plan()
        self.loader: DataLoader | None = None
        # What was forked after OpenMP or CUDA have begun may hang. A server that has neither forks the
        # processes; it starts now, so that what it imports is there when images are asked for.
        self.server = self.count > 0 and sys.platform != "win32"
        if self.server:
            forkserver.set_forkserver_preload([__name__, type(reader).__module__])
            forkserver.ensure_running()

    @property
    def running(self) -> bool:
        """Whether they are there."""
        return self.loader is not None

    def read(self, plan: Iterable[list[int]], pin: bool) -> Iterator[tuple[Tensor, Bad]]:
        """The images at each of the plan's positions, uint8, and which of them could not be read.

        Raises
        ------
        DataError
            If a process ends before its time.
        """
        self.plan.batches = plan
        if self.loader is None:
            self.loader = self._start(pin)
        try:
            with _script_stays_here(self.reader):
                batches = iter(self.loader)
            yield from batches
        except (RuntimeError, OSError, EOFError) as error:
            if type(error) is RuntimeError and not str(error).startswith("DataLoader worker"):
                raise
            self.close()
            raise DataError(
                f"a process that reads images ended ({(str(error) or 'without a word').splitlines()[0]}); "
                "lower data.workers or train.batch_size, or give /dev/shm more room"
            ) from None

    def _start(self, pin: bool) -> DataLoader:
        processes: dict[str, Any] = {}
        if self.count:
            # How many is the user's choice or ours; the loader would complain at each start.
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            processes = {
                "multiprocessing_context": "forkserver" if self.server else "spawn",
                "prefetch_factor": AHEAD,
                "persistent_workers": True,
                "worker_init_fn": _begin,
            }
        return DataLoader(
            Images(self.reader),
            batch_sampler=self.plan,
            num_workers=self.count,
            collate_fn=_as_it_is,
            pin_memory=pin,
            # Its own, or each pass would draw from the generator that dropout draws from.
            generator=torch.Generator(),
            **processes,
        )

    def close(self) -> None:
        """End the processes; they start again when needed."""
        passing: Any = getattr(self.loader, "_iterator", None)
        if passing is not None:
            # There is no public way. Where an error's traceback still refers to it, garbage collection ends
            # it, but closes the queues first, and waits five seconds for processes that hear of nothing.
            passing._shutdown_workers()
        self.loader = None


@contextmanager
def _script_stays_here(reader: ImageReader) -> Iterator[None]:
    """Processes that start in here do not run the main module anew, unless the reader is defined there.

    They all would, for the sake of what it defines; and a script that calls us without asking whether it is
    the main module would call us in each of them.
    """
    main = vars(sys.modules["__main__"])
    said = {} if type(reader).__module__ == "__main__" else {"__file__": None, "__spec__": None}
    before = {name: main[name] for name in said if name in main}
    main.update(said)
    try:
        yield
    finally:
        for name in said:
            main.pop(name)
        main.update(before)


class _Plan:
    """The batches of the pass to come, as the loader asks for them."""

    batches: Iterable[list[int]] = ()

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


class Images(Dataset):
    """Whole batches of a reader's images, as the loader fetches them."""

    def __init__(self, reader: ImageReader) -> None:
        self.reader = reader

    def __getitems__(self, positions: Sequence[int]) -> tuple[Tensor, Bad]:
        images, bad = torch.zeros(len(positions), *self.reader.shape, dtype=torch.uint8), []
        for row, position in enumerate(positions):
            try:
                images[row] = torch.from_numpy(self.reader.read(position))
            except BadImage as error:  # a traceback of another process is nothing to show
                bad.append((position, str(error)))
        return images, bad


def _as_it_is(batch: Any) -> Any:
    return batch


def _begin(worker: int) -> None:
    """In each process, first."""
    warnings.simplefilter("ignore")  # the decoder's, of odd but readable files

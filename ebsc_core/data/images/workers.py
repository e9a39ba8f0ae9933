"""Read images in separate processes, ahead of their use."""

from __future__ import annotations

import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ebsc_core.utils.errors import DataError, text_of
from ebsc_core.utils.signals import follow, ignored
from ebsc_core.utils.system import processors

# Number of batches that each process reads ahead.
AHEAD = 2
# Few disks are fast enough for more processes.
MAX_WORKERS = 8
# At most so many unreadable images are named.
NAMED = 20
LEAVE_OUT = "repair or remove it, or pass `data.skip_bad_images`"
RESTORE = "the run was made of it, so restore it"

Bad = list[tuple[int, str]]
"""The positions of images that could not be read, each with the reason."""


class BadImage(Exception):
    """Report that an image cannot be read; the text gives the reason in a few words."""


def unreadable(where: str, reason: str, count: int) -> DataError:
    """Return the error for ``count`` images that cannot be read; it names the first."""
    more = f" and {count - 1} more" if count > 1 else ""
    return DataError(f"cannot read image {where}{more} ({reason}); {LEAVE_OUT}")


@contextmanager
def none_left_out(advice: str = RESTORE) -> Iterator[None]:
    """Give another advice on an unreadable image within the block, where each image is needed."""
    try:
        yield
    except DataError as error:
        text = str(error)
        if not text.endswith(LEAVE_OUT):
            raise
        raise DataError(text.removesuffix(LEAVE_OUT) + advice) from error


def warn_unreadable(bad: Sequence[tuple[str, str]], warn: Callable[[str], None]) -> None:
    """Warn of images that are left out, each with its place and the reason; count those beyond ``NAMED``."""
    for where, reason in bad[:NAMED]:
        warn(f"left out unreadable image {where} ({reason})")
    if len(bad) > NAMED:
        warn(f"left out {len(bad) - NAMED:,} more unreadable images")


class ImageReader(ABC):
    """Read images one by one, in any process.

    The reader is pickled into each process. It should therefore hold tensors, which are shared, instead of
    many objects, and open its files only when it reads.
    """

    shape: tuple[int, int, int]
    """The shape ``(C, H, W)`` of every image."""

    @abstractmethod
    def name(self, position: int) -> str:
        """Return the name of an image in ``assignments.csv``."""

    @abstractmethod
    def where(self, position: int) -> str:
        """Return the place of an image on one printable line, for messages."""

    @abstractmethod
    def read(self, position: int) -> np.ndarray:
        """Read an image ``(C, H, W)`` uint8.

        Raises
        ------
        BadImage
            If the image is damaged or missing.
        """

    @abstractmethod
    def mark(self, positions: np.ndarray) -> bytes:
        """Identify these images without reading them, by names, sizes, times or checksums."""


class Workers:
    """Run the processes of one reader; they start at the first use and stay from one pass to the next.

    Parameters
    ----------
    reader : ImageReader
    count : int, optional
        The number of processes; by default, one less than the number of processors, from 1 to 8. With 0,
        this process reads.
    """

    def __init__(self, reader: ImageReader, count: int | None = None) -> None:
        self.reader = reader
        self.count = min(MAX_WORKERS, max(1, processors() - 1)) if count is None else count
        self.plan = _Plan()
        self.loader: DataLoader | None = None
        # A process that is forked after OpenMP or CUDA started may hang. A server without either forks the
        # processes. It starts now, so that its imports are finished when the first images are needed.
        self.server = self.count > 0 and sys.platform != "win32"
        if self.server:
            forkserver.set_forkserver_preload([__name__, type(reader).__module__])
            with ignored():  # this process decides what signals to a whole group or job do
                forkserver.ensure_running()

    @property
    def running(self) -> bool:
        """Return whether the processes are running."""
        return self.loader is not None

    def read(self, plan: Iterable[list[int]], pin: bool) -> Iterator[tuple[Tensor, Bad]]:
        """Yield the images at the positions of each batch, uint8, and the images that could not be read.

        Raises
        ------
        DataError
            If a process ends unexpectedly.
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
                f"a process that reads images ended ({text_of(error)}); "
                "lower data.workers or train.batch_size, or give /dev/shm more room"
            ) from None

    def _start(self, pin: bool) -> DataLoader:
        processes: dict[str, Any] = {}
        if self.count:
            # The user or this class chose the number; the loader would warn about it at each start.
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
            # A separate generator, because each pass would otherwise draw from the generator of dropout.
            generator=torch.Generator(),
            **processes,
        )

    def close(self) -> None:
        """End the processes; they start again when needed."""
        passing: Any = getattr(self.loader, "_iterator", None)
        if passing is not None:
            # There is no public method. If the traceback of an error still refers to the iterator, garbage
            # collection ends it, but closes the queues first and waits five seconds for processes that get
            # no message.
            passing._shutdown_workers()
        self.loader = None


@contextmanager
def _script_stays_here(reader: ImageReader) -> Iterator[None]:
    """Keep processes that start inside the block from running the main module again.

    By default, every process imports the main module for its definitions. A script that calls this library
    without checking ``__name__ == "__main__"`` would then call it in each process. If the main module
    defines the reader, the processes do import it.
    """
    main = vars(sys.modules["__main__"])
    hidden = {} if type(reader).__module__ == "__main__" else {"__file__": None, "__spec__": None}
    before = {name: main[name] for name in hidden if name in main}
    main.update(hidden)
    try:
        yield
    finally:
        for name in hidden:
            main.pop(name)
        main.update(before)


class _Plan:
    """Hold the batches of the next pass for the loader."""

    batches: Iterable[list[int]] = ()

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


class Images(Dataset):
    """Read whole batches of a reader's images for the loader."""

    def __init__(self, reader: ImageReader) -> None:
        self.reader = reader

    def __getitems__(self, positions: Sequence[int]) -> tuple[Tensor, Bad]:
        images, bad = torch.zeros(len(positions), *self.reader.shape, dtype=torch.uint8), []
        for row, position in enumerate(positions):
            try:
                images[row] = torch.from_numpy(self.reader.read(position))
            except BadImage as error:  # do not show the traceback of another process
                bad.append((position, str(error)))
        return images, bad


def _as_it_is(batch: Any) -> Any:
    return batch


def _begin(worker: int) -> None:
    """Silence the warnings of decoders, and read on until the run ends; each process calls this first."""
    follow()
    warnings.simplefilter("ignore")  # decoders warn of unusual but readable files

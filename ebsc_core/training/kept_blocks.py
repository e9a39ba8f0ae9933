"""Keep the blocks of a long extraction in the cache, so that it goes on where it was killed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import torch

from ebsc_core.data.features.store import FeatureTable
from ebsc_core.training.checkpoint import CheckpointStore
from ebsc_core.utils.cached_entries import CHECKPOINT_SUFFIX
from ebsc_core.utils.errors import DataError
from ebsc_core.utils.paths import mark_cache
from ebsc_core.utils.progress import Progress

# At most so many seconds of extraction are lost if the machine fails.
EVERY = 60.0


class KeptBlocks:
    """Keep the rows of an extraction in files ``<key>.<first row>``, each of some whole blocks.

    Parameters
    ----------
    folder : Path
        The folder of the cache.
    key : str
        A digest of all that the rows depend on.
    """

    def __init__(self, folder: Path, key: str, progress: Progress) -> None:
        self.folder, self.key, self.progress = folder, key, progress
        self.held: list[FeatureTable] = []
        self.first = 0
        """The number of rows that are in files."""
        self.last = time.monotonic()
        self.earlier = 0.0
        """The seconds that the extraction of the rows in files took in earlier processes."""
        self.keeps = True
        """Whether new blocks are kept; not after a file could not be written."""

    @property
    def begin(self) -> Path:
        """The file with the first rows; it exists if any rows are kept."""
        return self._path(0)

    def resumed(self, extract: Callable[[int], Iterator[FeatureTable]]) -> Iterator[FeatureTable]:
        """Yield all blocks: those that are kept, then the others as ``extract(first row)`` computes them.

        The new blocks are kept at intervals, and when an exception or a signal ends the extraction.
        """
        for table in self._kept():
            self.first += len(table.features)
            yield table
        if self.first:
            self.progress.note(f"{self.first} images were extracted before; the rest follows")
        self.last = time.monotonic()
        try:
            for table in extract(self.first):
                if self.keeps:
                    self.held.append(table)
                if time.monotonic() - self.last >= EVERY:
                    self._save()
                yield table
        except BaseException:  # also when the reader of these blocks ends
            self._save()
            raise

    def remove(self) -> None:
        """Delete the files, because the extraction is complete."""
        for path in self.folder.glob(f"{self.key}.*{CHECKPOINT_SUFFIX}"):
            path.unlink(missing_ok=True)

    def _kept(self) -> Iterator[FeatureTable]:
        """Yield the tables that are kept without a gap; what follows a damaged file is computed anew."""
        while (path := self._path(self.first)).exists():
            try:
                tensors, record = CheckpointStore(path).load() or ({}, {})
                table = FeatureTable(tensors["features"], tensors.get("embeddings"))
                if not len(table.features):  # it would be read again and again
                    raise DataError(f"{path} holds no rows")
            except (DataError, KeyError) as error:
                self.progress.warn(f"the images from number {self.first} on are extracted anew: {error}")
                return
            with suppress(OSError):  # a cache that can only be read
                os.utime(path)  # what is in use is not removed
            self.earlier += record.get("seconds", 0.0)
            yield table

    def _save(self) -> None:
        """Write the blocks that are held to a file; a full disk must not end the extraction."""
        if not self.held:
            return
        tensors = {"features": torch.cat([table.features for table in self.held])}
        embedded = [table.embeddings for table in self.held if table.embeddings is not None]
        if embedded:
            tensors["embeddings"] = torch.cat(embedded)
        try:
            mark_cache(self.folder)
            record = {"seconds": time.monotonic() - self.last}
            CheckpointStore(self._path(self.first)).save((tensors, record))
        except OSError as error:
            self.progress.warn(f"the extraction is not kept: {error}")
            self.keeps = False  # to hold all blocks until a next try could need all memory
        else:
            self.first += len(tensors["features"])
        self.held.clear()
        self.last = time.monotonic()

    def _path(self, first: int) -> Path:
        return self.folder / f"{self.key}.{first:012}{CHECKPOINT_SUFFIX}"

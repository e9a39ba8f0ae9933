"""Measure the peak memory of some work: torch's tensors and NumPy's arrays, whoever allocates them.

The peak of the process is too coarse for a few MiB: it never falls, and it includes what an allocator
keeps. So this module counts allocations. A dispatch mode sees the result of every torch operation; its
storage is counted until it is freed. ``tracemalloc`` counts the memory of NumPy and Python. Two things are
not counted: internal memory of compiled code, and torch operations in other threads. Torch is limited to
one thread.
"""

from __future__ import annotations

import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the largest number of bytes held at once while ``work`` ran, beyond those held before."""
    tensors = _LiveTensors()
    ours = not tracemalloc.is_tracing()
    if ours:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        with _one_thread(), tensors:
            work()
        arrays = tracemalloc.get_traced_memory()[1] - before
    finally:
        if ours:
            tracemalloc.stop()
    return tensors.peak + arrays


class _LiveTensors(TorchDispatchMode):
    """Count the bytes of the storages that operations allocate, as long as they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return result

    def _add(self, tensor: Tensor) -> None:
        try:
            storage: Any = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
        except NotImplementedError:  # opaque tensors, such as oneDNN's, have no storage
            storage, key, size = tensor, id(tensor), tensor.numel() * tensor.element_size()
        if key not in self.known:
            self.known.add(key)
            self.held += size
            self.peak = max(self.peak, self.held)
            weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.held -= size


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

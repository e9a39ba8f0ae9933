"""Help solvers of many small problems: choose the dtype, and solve many queries in parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item], device: torch.device) -> list[Result]:
    """Apply ``work`` to every item, and return the results in order.

    On the CPU, the function uses as many threads as torch, and one thread per item. Small tensor operations
    gain little from threads within each operation.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        return [work(item) for item in items]
    try:
        with ThreadPoolExecutor(threads, initializer=_alone) as pool:
            return list(pool.map(work, items))
    finally:
        torch.set_num_threads(threads)  # new threads would inherit the number of the last one


def precise(device: torch.device) -> torch.dtype:
    """Return the dtype for small problems: float64, or float32 on Apple's Metal, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def _alone() -> None:
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)

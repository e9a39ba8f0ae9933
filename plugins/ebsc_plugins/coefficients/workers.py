"""For solvers of many small problems: the dtype to solve in, and many queries side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item], device: torch.device) -> list[Result]:
    """``work`` of every item, on the CPU in as many threads as torch has, one item a thread, in order.

    Many small tensor operations gain little from threads within each.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        return [work(item) for item in items]
    try:
        with ThreadPoolExecutor(threads, initializer=_alone) as pool:
            return list(pool.map(work, items))
    finally:
        torch.set_num_threads(threads)  # new threads would have the last one's number


def precise(device: torch.device) -> torch.dtype:
    """The dtype to solve small problems in: float64, which Apple's Metal has not."""
    return torch.float32 if device.type == "mps" else torch.float64


def _alone() -> None:
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)

"""What solvers do with the rows of a dictionary: inner products, and many queries side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

Item = TypeVar("Item")
Result = TypeVar("Result")


class Rows:
    """Rows whose inner products with many queries are wanted."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        on_cpu = rows.device.type == "cpu" and rows.dtype == torch.float32
        # oneDNN took half of MKL's time on an AMD processor, and torch's own product is MKL's.
        self.packed = rows.to_mkldnn() if on_cpu and torch.backends.mkldnn.is_available() else None

    def products(self, queries: Tensor) -> Tensor:
        """Inner products of queries ``(B, D)`` with all rows, ``(B, N)``."""
        if self.packed is None:
            return queries @ self.rows.T
        return F.linear(queries.to_mkldnn(), self.packed).to_dense()


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


def _alone() -> None:
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)

"""Compute inner products of many queries with the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F


class PackedRows:
    """Hold rows ``(N, D)`` in a memory layout that is fast for inner products with many queries."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        on_cpu = rows.device.type == "cpu" and rows.dtype in (torch.float32, torch.bfloat16)
        # oneDNN took half of MKL's time on an AMD processor; torch's own product uses MKL.
        self.packed = rows.to_mkldnn() if on_cpu and torch.backends.mkldnn.is_available() else None

    def __len__(self) -> int:
        return len(self.rows)

    def products(self, queries: Tensor) -> Tensor:
        """Return the inner products ``(B, N)`` of queries ``(B, D)`` with all rows, in the rows' dtype."""
        queries = queries.to(self.rows.dtype)
        if self.packed is None:
            return queries @ self.rows.T
        return F.linear(queries.to_mkldnn(), self.packed).to_dense()


def full_precision() -> AbstractContextManager[None]:
    """Compute matrix products inside the block in full float32, even if training uses TF32.

    TF32 keeps 10 bits of a factor. Near neighbours differ by less than that.
    """
    return _matmul_precision("highest")


def training_precision(device: torch.device) -> AbstractContextManager[None]:
    """Allow the precision of training inside the block: TF32 on CUDA, oneDNN's bf32 on a CPU.

    A CPU without AMX still computes in float32, but with oneDNN, which takes half of MKL's time on an AMD
    processor.
    """
    return _matmul_precision("medium" if device.type == "cpu" else "high")


@contextmanager
def _matmul_precision(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)

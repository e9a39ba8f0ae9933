"""Inner products of many queries with the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F


class PackedRows:
    """Rows ``(N, D)`` laid out once for inner products with many queries."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        on_cpu = rows.device.type == "cpu" and rows.dtype in (torch.float32, torch.bfloat16)
        # oneDNN took half of MKL's time on an AMD processor, and torch's own product is MKL's.
        self.packed = rows.to_mkldnn() if on_cpu and torch.backends.mkldnn.is_available() else None

    def __len__(self) -> int:
        return len(self.rows)

    def products(self, queries: Tensor) -> Tensor:
        """Inner products of queries ``(B, D)`` with all rows, ``(B, N)``, in the dtype of those."""
        queries = queries.to(self.rows.dtype)
        if self.packed is None:
            return queries @ self.rows.T
        return F.linear(queries.to_mkldnn(), self.packed).to_dense()


def full_precision() -> AbstractContextManager[None]:
    """Products in here are float32 throughout, whatever training allows itself.

    TF32 keeps 10 bits of a factor: near neighbours differ by less than that.
    """
    return _matmul_precision("highest")


def training_precision(device: torch.device) -> AbstractContextManager[None]:
    """Products in here may be as rough as those of training: TF32 on CUDA, on a CPU oneDNN's bf32.

    A CPU without AMX computes float32 all the same, but by oneDNN: half of MKL's time on an AMD processor.
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

"""Inner products of many queries with the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F


class PackedRows:
    """Rows ``(N, D)`` laid out once for inner products with many queries."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        on_cpu = rows.device.type == "cpu" and rows.dtype == torch.float32
        # oneDNN took half of MKL's time on an AMD processor, and torch's own product is MKL's.
        self.packed = rows.to_mkldnn() if on_cpu and torch.backends.mkldnn.is_available() else None

    def __len__(self) -> int:
        return len(self.rows)

    def products(self, queries: Tensor) -> Tensor:
        """Inner products of queries ``(B, D)`` with all rows, ``(B, N)``."""
        if self.packed is None:
            return queries @ self.rows.T
        return F.linear(queries.to_mkldnn(), self.packed).to_dense()


@contextmanager
def full_precision() -> Iterator[None]:
    """Products in here are float32 throughout, whatever training allows itself.

    TF32 keeps 10 bits of a factor: near neighbours differ by less than that.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)

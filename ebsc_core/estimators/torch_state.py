"""A run inside somebody's program: it leaves torch as it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Random generators and the precision of products are torch's, one for all threads: a run has them to itself.
_one_at_a_time = threading.RLock()


@contextmanager
def apart(device: torch.device) -> Iterator[None]:
    """Random generators and switches of torch are afterwards as they were before.

    Runs of several threads take turns: each seeds the same generators.
    """
    kind, devices, cudnn = "cuda", range(0), torch.backends.cudnn
    if device.type == "mps":
        kind, devices = "mps", range(1)
    elif device.type == "cuda" or torch.cuda.is_initialized():  # a seed is for all of them
        devices = range(torch.cuda.device_count())
    with _one_at_a_time, torch.random.fork_rng(devices, device_type=kind):
        before = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before[0])
            cudnn.allow_tf32, cudnn.benchmark = before[1:]

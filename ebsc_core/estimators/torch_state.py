"""Run inside another program and leave torch's global state as it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

# torch has one set of random generators and one matmul precision for all threads, so only one run at a
# time.
_one_at_a_time = threading.RLock()


@contextmanager
def apart(device: torch.device) -> Iterator[None]:
    """Run the block with torch's own defaults, and restore the caller's state at its end.

    The caller's random generators, default type, default device, gradient mode, inference mode and autocast
    have no effect on the block, and the block has none on them. Runs in several threads wait for each other,
    because each seeds the same generators.
    """
    kind, devices, cudnn = "cuda", range(0), torch.backends.cudnn
    if device.type == "mps":
        kind, devices = "mps", range(1)
    elif device.type == "cuda" or torch.cuda.is_initialized():  # a seed affects all devices
        devices = range(torch.cuda.device_count())
    with (
        _one_at_a_time,
        torch.random.fork_rng(devices, device_type=kind),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast("cpu", enabled=False),
        torch.autocast(device.type, enabled=False),
        _default_device_cpu(),
    ):
        before = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(default)
            torch.set_float32_matmul_precision(before[0])
            cudnn.allow_tf32, cudnn.benchmark = before[1:]


def _default_device_cpu() -> AbstractContextManager[Any]:
    """Return a context in which new tensors are on the CPU; it costs nothing if they are anyway."""
    cpu = torch.device("cpu")
    return nullcontext() if torch.get_default_device() == cpu else cpu

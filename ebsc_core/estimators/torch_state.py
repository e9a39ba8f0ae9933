"""Run inside another program and leave torch's global state as it was."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from threadpoolctl import threadpool_limits


class _Process:
    """Hold what is one for all threads of a process."""

    def __init__(self) -> None:
        self.forked = False
        # torch has one set of random generators and one matmul precision for all threads, so only one run at
        # a time.
        self.one_at_a_time = threading.RLock()

    def fork(self) -> None:
        """Begin anew in a child process: a thread that the child does not have may hold the lock."""
        self.forked, self.one_at_a_time = True, threading.RLock()


_process = _Process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.fork)


@contextmanager
def apart(device: torch.device) -> Iterator[None]:
    """Run the block with torch's own defaults, and restore the caller's state at its end.

    The caller's random generators, default type, default device, gradient mode, inference mode and autocast
    have no effect on the block, and the block has none on them. Runs in several threads wait for each other,
    because each seeds the same generators. In a forked process, the block has one thread.
    """
    kind, devices, cudnn = "cuda", range(0), torch.backends.cudnn
    if device.type == "mps":
        kind, devices = "mps", range(1)
    elif device.type == "cuda" or torch.cuda.is_initialized():  # a seed affects all devices
        devices = range(torch.cuda.device_count())
    with (
        _process.one_at_a_time,
        _threads(),
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


@contextmanager
def _threads() -> Iterator[None]:
    """Compute in one thread inside the block if this process was forked.

    OpenMP's threads do not survive a fork, and the child would wait for them for ever.
    """
    if not _process.forked:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)

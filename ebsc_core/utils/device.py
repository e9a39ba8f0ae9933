"""Which device and which precision a run uses, and why."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf

import torch
from torch import Tensor

from ebsc_core.utils.errors import DeviceError

# bf16 must win clearly to be chosen: a near tie would flip with the machine's mood from run to run.
BF16_ADVANTAGE = 1.3
# Below this side, bf16 was measured at 1.0-1.3 times fp32 on an AVX512-BF16 CPU; not worth its rounding.
BF16_MIN_SIDE = 16


def resolve_device(name: str) -> torch.device:
    """The device called ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises
    ------
    DeviceError
        If the name is unknown or the device is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"unknown device {name!r}: use auto, cpu, cuda, cuda:N or mps")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"device {name!r}: the number after the colon must be an index") from None
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise DeviceError(
                f"device {name!r}: this machine has no CUDA device PyTorch can use; try --device auto"
            )
        if int(index or 0) >= count:  # device.index has wrapped around beyond one byte
            raise DeviceError(f"device {name!r}: there are {count} CUDA devices, cuda:0 to cuda:{count - 1}")
    if kind != "cuda" and index:
        raise DeviceError(f"device {name!r}: there is one only; use {kind}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"device {name!r}: this machine has no Metal device; try --device auto")
    return device


def own_device(name: str) -> torch.device:
    """The device called ``name`` for this process: of several on a machine, each has its own CUDA device.

    Raises
    ------
    DeviceError
        If the device is not there, or there are too few of its kind.
    """
    device = resolve_device(name)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or device.type == "cpu":
        return device
    if device.type != "cuda":
        raise DeviceError(f"several processes cannot train on {device.type}; use --device cpu, or start one")
    if device.index is not None:
        raise DeviceError(f"--device {name}: each of several processes has a device of its own; use cuda")
    if here > torch.cuda.device_count():
        raise DeviceError(
            f"{here} processes were started on this machine, which has {torch.cuda.device_count()} CUDA "
            "devices; start as many (torchrun --nproc-per-node, accelerate launch --num_processes)"
        )
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def choose_precision(
    requested: str, device: torch.device, side: int, trial: Callable[[bool], None]
) -> tuple[bool, str]:
    """Whether to train in bf16 autocast, and the reason in words.

    Parameters
    ----------
    requested : {"auto", "fp32", "bf16"}
    device : torch.device
    side : int
        Shorter side of the images, in pixels.
    trial : callable
        Runs one training step of the real network, in bf16 if its argument is true, and returns when the
        device is done; timed on devices that have bf16 instructions.

    Raises
    ------
    DeviceError
        If bf16 is requested on Metal, which has no bf16 autocast worth the name.
    """
    if requested == "fp32":
        return False, "fp32, as asked"
    if requested == "bf16":
        if device.type == "mps":
            raise DeviceError("--precision bf16 is not available on mps; use fp32 or auto")
        return True, "bf16, as asked"
    if not has_bf16(device):
        return False, "fp32, no bf16 instructions here"
    if device.type == "cpu" and side < BF16_MIN_SIDE:
        return False, f"fp32, images under {BF16_MIN_SIDE} px gain nothing from bf16 on a CPU"
    fp32, bf16 = least_seconds(lambda: trial(False), lambda: trial(True))
    ratio = fp32 / bf16
    chosen = ratio >= BF16_ADVANTAGE
    return chosen, f"{'bf16' if chosen else 'fp32'}, bf16 measured at {ratio:.1f}x the speed of fp32"


def has_bf16(device: torch.device) -> bool:
    """Whether this device multiplies bf16 natively."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and cpu_has_bf16()


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 natively (AVX512-BF16, AMX or Arm's equivalent)."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
    return any(bool(getattr(torch.cpu, check)()) for check in checks if hasattr(torch.cpu, check))


def least_seconds(*works: Callable[[], None], repeats: int = 3) -> list[float]:
    """Of pieces of work, after a first time that pays for kernel selection.

    They take turns, and the least counts: others who use the machine only ever add to a time.
    """
    for work in works:
        work()
    least = [inf] * len(works)
    for _ in range(repeats):
        for i, work in enumerate(works):
            start = time.perf_counter()
            work()
            least[i] = min(least[i], time.perf_counter() - start)
    return least


def prepare(device: torch.device) -> None:
    """Allow TF32 in float32 matrix products and convolutions on CUDA."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True


def describe_device(device: torch.device) -> str:
    """The device in words, e.g. ``cpu (2 threads)``."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    return str(device)


def move(values: Tensor, device: torch.device) -> Tensor:
    """Values from the CPU on a device; a GPU is not waited for."""
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


@contextmanager
def device_memory(device: torch.device) -> Iterator[Callable[[], int | None]]:
    """What is yielded says the most MiB of a CUDA device that were held within; None of another device."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    yield lambda: torch.cuda.max_memory_allocated(device) // 2**20 if cuda else None

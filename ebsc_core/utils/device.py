"""Choose the device of a run and report what the device can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ebsc_core.utils.errors import DeviceError
from ebsc_core.utils.launched import local_process_count, local_process_index, process_count


def resolve_device(name: str) -> torch.device:
    """Return the device called ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises
    ------
    DeviceError
        If the name is unknown or the machine does not have the device.
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
                f"device {name!r}: this machine has no CUDA device PyTorch can use; try `device=auto`"
            )
        if int(index or 0) >= count:  # device.index wraps around beyond one byte
            raise DeviceError(f"device {name!r}: there are {count} CUDA devices, cuda:0 to cuda:{count - 1}")
    if kind != "cuda" and index:
        raise DeviceError(f"device {name!r}: there is only one; use {kind}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"device {name!r}: this machine has no Metal device; try `device=auto`")
    return device


def own_device(name: str) -> torch.device:
    """Return the device of this process.

    If several processes run on one machine, each process gets its own CUDA device.

    Raises
    ------
    DeviceError
        If the machine does not have the device, or has fewer devices of this kind than processes.
    """
    device = resolve_device(name)
    here = local_process_count()
    if process_count() == 1 or device.type == "cpu":
        return device
    if device.type != "cuda":
        raise DeviceError(f"several processes cannot train on {device.type}; use `device=cpu`, or start one")
    if device.index is not None:
        raise DeviceError(f"`device={name}`: each of several processes has a device of its own; use cuda")
    if here > torch.cuda.device_count():
        raise DeviceError(
            f"{here} processes were started on this machine, which has {torch.cuda.device_count()} CUDA "
            "devices; start as many (torchrun --nproc-per-node, accelerate launch --num_processes)"
        )
    return torch.device("cuda", local_process_index())


def has_bf16(device: torch.device) -> bool:
    """Return whether this device multiplies bf16 natively."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and cpu_has_bf16()


def cpu_has_bf16() -> bool:
    """Return whether this CPU multiplies bf16 natively (AVX512-BF16, AMX or Arm's equivalent)."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
    return any(bool(getattr(torch.cpu, check)()) for check in checks if hasattr(torch.cpu, check))


def prepare(device: torch.device) -> None:
    """Allow TF32 in float32 matrix products and convolutions on CUDA."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True


def describe_device(device: torch.device) -> str:
    """Describe the device in words, e.g. ``cpu (2 threads)``."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    return str(device)


def move(values: Tensor, device: torch.device) -> Tensor:
    """Copy values from the CPU to a device, without waiting for a CUDA device.

    A copy to Metal is waited for: it would go on reading the values after their memory is used otherwise
    (https://github.com/pytorch/pytorch/issues/189690).
    """
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def random_states(device: torch.device) -> dict[str, Tensor]:
    """Return the states of the generators that layers such as dropout draw from, by name.

    Those are the CPU's, and the device's own if it has one.
    """
    states = {"random": torch.get_rng_state()}
    if device.type != "cpu":
        own, which = _own_generator(device)
        states[f"random.{device.type}"] = own.get_rng_state(*which)
    return states


def restore_random_states(device: torch.device, states: Mapping[str, Tensor]) -> None:
    """Set the generators to states of :func:`random_states`; what came from another device is left out."""
    torch.set_rng_state(states["random"])
    if (state := states.get(f"random.{device.type}")) is not None:
        own, which = _own_generator(device)
        own.set_rng_state(state, *which)


def _own_generator(device: torch.device) -> tuple[Any, tuple[torch.device, ...]]:
    """Return the module with the generators of a kind of device, and what names the one of this device."""
    return (torch.mps, ()) if device.type == "mps" else (torch.cuda, (device,))


@contextmanager
def device_memory(device: torch.device) -> Iterator[Callable[[], int | None]]:
    """Measure the peak memory of a CUDA device inside the block.

    Yields
    ------
    callable
        Returns the peak since the block started, in MiB; None for other devices.
    """
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    yield lambda: torch.cuda.max_memory_allocated(device) // 2**20 if cuda else None

"""In which arithmetic a training runs: tried on its own network where nobody says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Literal

import torch
from torch import Tensor, nn

from ebsc_core.plugins.interfaces import Backbone, Objective
from ebsc_core.utils.device import has_bf16
from ebsc_core.utils.errors import DeviceError

# bf16 must win clearly to be chosen: a near tie would flip with the machine's mood from run to run.
BF16_ADVANTAGE = 1.3
# Below this side, bf16 was measured at 1.0-1.3 times fp32 on an AVX512-BF16 CPU; not worth its rounding.
BF16_MIN_SIDE = 16

# On a CPU as many images show the ratio: bf16 was 1.6 times as fast as fp32 on 16, 1.8 times on 256. A GPU is
# not busy with them, so that all of a batch is tried there.
CPU_TRIAL = 16
# Compiling a ResNet takes about a minute, which a shorter training cannot win back.
COMPILE_FROM_S = 300.0
# A near tie would flip from run to run, and rounding with it.
COMPILE_ADVANTAGE = 1.05


@dataclass(frozen=True)
class Arithmetic:
    """What was chosen, and why in words."""

    bf16: bool
    compiled: bool
    reasons: dict[str, str]
    """``precision`` and ``compile``."""

    @property
    def precision(self) -> str:
        return "bf16" if self.bf16 else "fp32"


def choose_arithmetic(
    objective: Objective,
    images: Tensor,
    device: torch.device,
    steps: int,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    compiling: Literal["auto", True, False] = "auto",
) -> Arithmetic:
    """Precision, and whether the backbone runs compiled; if so, it is left compiled.

    Parameters
    ----------
    objective : Objective
        On the device; but for the compilation it is left as it was.
    images : Tensor of shape (B, C, H, W)
        A batch of the training, uint8.
    device : torch.device
    steps : int
        That would run compiled.
    precision, compiling
        As asked for.

    Raises
    ------
    DeviceError
        If the device cannot do what was asked for.
    """
    # What is compiled is compiled for so many images.
    few = device.type == "cpu" and compiling is not True
    trial = Trial(objective, images[:CPU_TRIAL] if few else images, device)
    bf16, why = choose_precision(precision, device, min(images.shape[2:]), trial)
    compiled, why_compiled = choose_compiling(
        compiling, device, backbones(objective), lambda: trial(bf16), steps
    )
    return Arithmetic(bf16, compiled, {"precision": why, "compile": why_compiled})


class Trial:
    """Forward and backward passes on a few images, to be timed; they leave the objective as it was."""

    def __init__(self, objective: Objective, images: Tensor, device: torch.device) -> None:
        self.objective, self.device = objective, device
        # With the strides of views, also of grey images: code is compiled for strides, too.
        view = torch.empty(images.shape, device=device, memory_format=torch.channels_last)
        self.view = view.copy_(images).div_(255)

    def __call__(self, bf16: bool) -> None:
        """One pass; over only when the device is done."""
        buffers = {name: buffer.clone() for name, buffer in self.objective.named_buffers()}
        on_gpu = self.device.type == "cuda"
        try:
            with (
                torch.random.fork_rng(devices=[self.device] if on_gpu else []),
                torch.autocast(self.device.type, torch.bfloat16, enabled=bf16),
            ):
                self.objective.train()(self.view, self.view).loss.backward()
        finally:
            self.objective.zero_grad(set_to_none=True)
            for name, buffer in self.objective.named_buffers():
                buffer.copy_(buffers[name])
        if on_gpu:
            torch.cuda.synchronize(self.device)


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
    fp32, bf16 = min_seconds(lambda: trial(False), lambda: trial(True))
    ratio = fp32 / bf16
    chosen = ratio >= BF16_ADVANTAGE
    return chosen, f"{'bf16' if chosen else 'fp32'}, bf16 measured at {ratio:.1f}x the speed of fp32"


def choose_compiling(
    requested: Literal["auto", True, False],
    device: torch.device,
    networks: list[nn.Module],
    trial: Callable[[], None],
    steps: int,
) -> tuple[bool, str]:
    """Whether networks run compiled, and the reason in words; if so, they are left compiled.

    ``auto`` compiles on CUDA, where it pays back within ``steps`` passes like ``trial``. On a CPU a ResNet
    was measured to gain nothing.
    """
    if requested is False:
        return False, "no, as asked"
    if not steps:
        return False, "no, a joint phase or several processes cannot be"
    if requested == "auto":
        if device.type != "cuda":
            return False, f"no, it gains nothing on {device.type}"
        (eager,) = min_seconds(trial)
        if steps * eager < COMPILE_FROM_S:
            return False, f"no, what could be compiled takes about {steps * eager:.0f} s without"
    for network in networks:
        network.compile(dynamic=False)
    start = time.perf_counter()
    try:
        trial()
    except Exception as error:  # the compiler behind may be missing, or raise anything
        run_eagerly(networks)
        return False, f"no, it failed: {_first_line(error)}"
    took = time.perf_counter() - start
    if requested is True:
        return True, f"yes, as asked ({took:.0f} s)"
    ratio = eager / min_seconds(trial)[0]
    if ratio < COMPILE_ADVANTAGE:
        run_eagerly(networks)
        return False, f"no, measured at {ratio:.2f}x the speed"
    return True, f"yes, in {took:.0f} s, measured at {ratio:.2f}x the speed"


def backbones(objective: Objective) -> list[nn.Module]:
    """The objective's own and its teacher's: they take the same images, and nearly all the time."""
    return [module for module in objective.modules() if isinstance(module, Backbone)]


def run_eagerly(networks: list[nn.Module]) -> None:
    """Undo ``compile``: what was compiled for training batches would be compiled anew for any others."""
    for network in networks:
        network._compiled_call_impl = None


def min_seconds(*works: Callable[[], None], repeats: int = 3) -> list[float]:
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


@contextmanager
def running_eagerly(networks: list[nn.Module]) -> Iterator[None]:
    """Run networks as they were before they were compiled, within the block only."""
    compiled = [network._compiled_call_impl for network in networks]
    run_eagerly(networks)
    try:
        yield
    finally:
        for network, call in zip(networks, compiled, strict=True):
            network._compiled_call_impl = call


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

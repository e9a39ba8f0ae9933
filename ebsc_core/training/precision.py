"""Choose the precision of a training, and whether its backbone is compiled.

Both depend only on the hardware and on the length of the training. So the same run on the same machine is
computed the same way, however busy the machine is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from ebsc_core.plugins.interfaces import Backbone, Objective
from ebsc_core.utils.device import has_bf16
from ebsc_core.utils.errors import DeviceError

# On CPUs with bf16 instructions (AVX512-BF16) a ResNet-18 step on 32-pixel images takes half the time in
# bf16, and one on 8-pixel images as long as in fp32. On an H100 bf16 is 1.7 times as fast as TF32.
BF16_MIN_SIDE = 16
# On an H100 the compiler takes 5 to 25 s, and a compiled ResNet-18 step of 512 images saves 5 ms: the time
# is back after some 5,000 steps. Twice as many leave a margin for smaller networks.
COMPILE_MIN_STEPS = 10_000


@dataclass(frozen=True)
class Arithmetic:
    """Hold the precision and compilation of a training, with the reasons in words."""

    bf16: bool
    compiled: bool
    reasons: dict[str, str]
    """The reasons, under ``precision`` and ``compile``."""

    @property
    def precision(self) -> str:
        return "bf16" if self.bf16 else "fp32"


def choose_arithmetic(
    objective: Objective,
    shape: torch.Size,
    device: torch.device,
    steps: int,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    compiling: Literal["auto", True, False] = "auto",
) -> Arithmetic:
    """Choose precision and compilation; if the backbone is to run compiled, leave it compiled.

    Parameters
    ----------
    objective : Objective
        The objective, on the device. It stays unchanged except for the compilation.
    shape : Size
        The shape ``(B, C, H, W)`` of a batch of the training.
    device : torch.device
    steps : int
        Number of steps that could run compiled; 0 if compilation is impossible.
    precision, compiling
        The requested values.

    Raises
    ------
    DeviceError
        If the device cannot do what is requested.
    """
    bf16, why = choose_precision(precision, device, min(shape[2:]))
    compiled, why_compiled = choose_compiling(compiling, device, steps)
    if compiled:
        trial = Trial(objective, shape, device)
        compiled, took = try_compiled(backbones(objective), lambda: trial(bf16))
        why_compiled = f"{why_compiled} ({took})" if compiled else f"no, it failed: {took}"
    return Arithmetic(bf16, compiled, {"precision": why, "compile": why_compiled})


def choose_precision(
    requested: Literal["auto", "fp32", "bf16"], device: torch.device, side: int
) -> tuple[bool, str]:
    """Decide whether to train in bf16 autocast, and give the reason in words.

    Parameters
    ----------
    requested : {"auto", "fp32", "bf16"}
    device : torch.device
    side : int
        Shorter side of the images, in pixels.

    Raises
    ------
    DeviceError
        If bf16 is requested on Metal, which has no bf16 autocast worth the name.
    """
    if requested == "fp32":
        return False, "fp32, as asked"
    if requested == "bf16":
        if device.type == "mps":
            raise DeviceError("`precision=bf16` is not available on mps; use fp32 or auto")
        return True, "bf16, as asked"
    if not has_bf16(device):
        return False, "fp32, no bf16 instructions here"
    if device.type == "cpu" and side < BF16_MIN_SIDE:
        return False, f"fp32, images under {BF16_MIN_SIDE} px gain nothing from bf16 on a CPU"
    return True, f"bf16, this {device.type} has bf16 instructions"


def extracts_in_bf16(
    requested: Literal["auto", "fp32", "bf16"], device: torch.device, backbone: Backbone, trains: bool
) -> bool:
    """Decide whether features are extracted in bf16 autocast.

    Networks that start from trained weights are large, and extraction is often all that they do. On CUDA
    devices with bf16 instructions they extract in bf16, unless fp32 is requested. On others they do so if
    bf16 is requested and they do not train: what a run that trains records as its precision is that of
    training, which may have been ``auto``, and repeating it must give the same features. All other networks
    compute in float32: one pass of a small network takes no time, and its features should not contain bf16's
    rounding.

    Parameters
    ----------
    trains : bool
        Whether the backbone has trained in this run.
    """
    if not backbone.pretrained or device.type == "mps" or requested == "fp32":
        return False
    if device.type == "cuda":
        return requested == "bf16" or has_bf16(device)
    return requested == "bf16" and not trains


def choose_compiling(
    requested: Literal["auto", True, False], device: torch.device, steps: int
) -> tuple[bool, str]:
    """Decide whether to compile, and give the reason in words.

    With ``auto``, the backbone is compiled on CUDA if the training is long enough to win the compiler's
    time back. On a CPU a ResNet was measured to gain nothing.
    """
    if requested is False:
        return False, "no, as asked"
    if not steps:
        return False, "no, a joint phase or several processes cannot be compiled"
    if requested is True:
        return True, "yes, as asked"
    if device.type != "cuda":
        return False, f"no, it gains nothing on {device.type}"
    if steps < COMPILE_MIN_STEPS:
        return False, f"no, {steps} steps are too few to pay for it ({COMPILE_MIN_STEPS} are enough)"
    return True, f"yes, {steps} steps pay for it"


def try_compiled(networks: list[nn.Module], attempt: Callable[[], None]) -> tuple[bool, str]:
    """Compile networks and run them once; undo it if that fails.

    Returns
    -------
    tuple of (bool, str)
        Whether it worked; the time it took, or else the error.
    """
    for network in networks:
        network.compile(dynamic=False)
    start = time.perf_counter()
    try:
        attempt()
    except Exception as error:  # the compiler behind may be missing, or raise anything
        run_eagerly(networks)
        return False, _first_line(error)
    return True, f"{time.perf_counter() - start:.0f} s"


class Trial:
    """Run forward and backward passes on a batch of noise, and leave the objective as it was."""

    def __init__(self, objective: Objective, shape: torch.Size, device: torch.device) -> None:
        self.objective, self.device = objective, device
        # With the strides of views, also of gray images: code is compiled for strides, too.
        view = torch.empty(shape, device=device, memory_format=torch.channels_last)
        self.view = view.uniform_(generator=torch.Generator(device).manual_seed(0))

    def __call__(self, bf16: bool) -> None:
        """Run one pass, and return when the device is done."""
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


def backbones(objective: Objective) -> list[nn.Module]:
    """Return the backbones of the objective and of its teacher, which take nearly all of the time."""
    return [module for module in objective.modules() if isinstance(module, Backbone)]


def run_eagerly(networks: list[nn.Module]) -> None:
    """Undo ``compile``: code compiled for training batches would be compiled again for any other batch."""
    for network in networks:
        network._compiled_call_impl = None


@contextmanager
def running_eagerly(networks: list[nn.Module]) -> Iterator[None]:
    """Run networks without compilation inside the block, then restore their compiled code."""
    compiled = [network._compiled_call_impl for network in networks]
    run_eagerly(networks)
    try:
        yield
    finally:
        for network, call in zip(networks, compiled, strict=True):
            network._compiled_call_impl = call


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

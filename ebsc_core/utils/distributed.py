"""Several processes that train as one, each on its share of every batch.

A *rank* is one of them, in the order of the launcher (``torchrun``, ``accelerate launch``), which says by
environment variables how many there are and where they meet. Each holds the whole model and the rows
``share(B)`` of a batch of B; :meth:`DistributedContext.gather` makes the batch whole again before anything
compares its rows, so that a loss, a dictionary or a balance is the same on all of them and the same as in one
process.

Meeting and gradient averaging are accelerate's. Its gather carries no gradient and its data loaders shuffle
by rules of their own, so neither is used; it is imported only where there are several processes.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, distributed, nn

from ebsc_core.utils.errors import DeviceError, EbscError, TrainingError

T = TypeVar("T")

# How long a rank waits for another before it gives up: longer than reading any data takes one of them more.
PATIENCE = timedelta(minutes=10)
# That this process was sent Ctrl-C, and goes on until the first ends.
_interrupted = threading.Event()
# Within these seconds of a rank's end the launcher ends those of the same machine.
GRACE = 3.0


@dataclass(frozen=True)
class DistributedContext:
    """A process among those that train together; by default it is the only one."""

    index: int = 0
    count: int = 1
    local_index: int = 0
    """Among those of the same machine."""

    @classmethod
    def join(cls, device: torch.device) -> DistributedContext:
        """Meet the processes that a launcher has started beside this one; alone if there is no launcher.

        Raises
        ------
        DeviceError
            If they cannot be reached.
        """
        count = int(os.environ.get("WORLD_SIZE", 1))
        if count == 1:
            return SINGLE_PROCESS
        # A torchrun on a machine without CUDA would make accelerate believe in single processes, unless told.
        try:
            state = _accelerator(device).state
        except (ValueError, RuntimeError, OSError) as error:
            where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DeviceError(f"{count} processes could not meet at {where}: {reason}") from error
        if state.num_processes != count:
            raise DeviceError(f"{state.num_processes} of {count} processes met; see docs/scale.md")
        # So that what is half done is tidied up when the launcher ends this process.
        signal.signal(signal.SIGTERM, _leave)
        if state.process_index:  # the first decides what Ctrl-C means, and what is still to be kept
            signal.signal(signal.SIGINT, lambda *_: _interrupted.set())
        return cls(state.process_index, count, state.local_process_index)

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.index == 0

    def share(self, n: int) -> slice:
        """The rows of n, which :attr:`count` divides, that are for this process."""
        each = n // self.count
        return slice(self.index * each, (self.index + 1) * each)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows ``(n, …)`` of all processes, ``(count * n, …)`` in their order; gradients flow back."""
        return rows if self.count == 1 else _Gather.apply(rows, self)

    def gather_views(self, rows: Tensor) -> Tensor:
        """The same of two views one after the other, ``(2n, …)``: first all of view a, then all of view b."""
        if self.count == 1:
            return rows
        return self.gather(rows).unflatten(0, (self.count, 2, -1)).transpose(0, 1).flatten(0, 2)

    @torch.no_grad()
    def mean_(self, tensors: Sequence[Tensor]) -> None:
        """Put in place of each tensor its mean over the processes, in one exchange."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        means = (flat / self.count).split([tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.copy_(mean.view_as(tensor))

    def broadcast(self, value: T) -> T:
        """The plain value that the first process has."""
        if self.count == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values)
        return values[0]

    @torch.no_grad()
    def copy_(self, module: nn.Module) -> None:
        """Give ``module`` the weights and buffers that it has in the first process."""
        if self.count > 1:
            for tensor in module.state_dict().values():
                sent = tensor.contiguous()
                distributed.broadcast(sent, src=0)
                tensor.copy_(sent)

    def same(self, value: str) -> bool:
        """Whether all processes have the same."""
        return len(set(self._all(value))) == 1

    def in_turn(self, call: Callable[[], T]) -> T:
        """Call on each machine in one process first, whose downloads the others then find."""
        for first in (True, False):
            with self.synchronized_errors():
                if (self.local_index == 0) == first:
                    value = call()
        return value

    @contextmanager
    def synchronized_errors(self) -> Iterator[None]:
        """What is wrong in one process is wrong in all: each raises the error of the first that has one."""
        if self.count == 1:
            yield
            return
        said = None
        try:
            yield
        except EbscError as error:
            said = str(error)
        for index, text in enumerate(self._all(said)):
            if text is not None:
                raise SynchronizedError(text if index == 0 else f"process {index} of {self.count}: {text}")

    @contextmanager
    def together(self) -> Iterator[None]:
        """What ends one process alone says which; what then ends the others says that it was not theirs."""
        try:
            yield
        except EbscError as error:
            if self.main or isinstance(error, SynchronizedError):
                raise
            raise type(error)(f"process {self.index} of {self.count}: {error}") from error
        except RuntimeError as error:
            # What gloo says is a plain RuntimeError.
            if self.count == 1 or not (isinstance(error, distributed.DistError) or "gloo" in str(error)):
                raise
            if _interrupted.is_set():
                raise KeyboardInterrupt from error
            time.sleep(GRACE)  # the launcher knows better, if it is on this machine
            raise TrainingError(
                f"process {self.index} of {self.count} lost the others; one of them has said why it ended"
            ) from error

    def _all(self, value: T) -> list[T]:
        """The plain values of all processes."""
        values = [value] * self.count
        if self.count > 1:
            distributed.all_gather_object(values, value)
        return values

    def prepare(self, module: nn.Module) -> nn.Module:
        """The module as it is to be called in training, so that ``backward`` averages its gradients.

        Everything that trains must take part in every step. The weights, and thus ``state_dict``, stay those
        of ``module``.
        """
        if self.count == 1:
            return module
        return _accelerator(next(module.parameters()).device).prepare(module)

    def close(self) -> DistributedContext:
        """Wait for the others and part from them; from then on each process is alone."""
        if self.count > 1:
            distributed.barrier()
            distributed.destroy_process_group()
        return SINGLE_PROCESS


SINGLE_PROCESS = DistributedContext()


class SynchronizedError(EbscError):
    """An error of one process that all of them know of."""


def _leave(*_: Any) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def _accelerator(device: torch.device) -> Any:
    """Accelerate's view of the processes, one for this process however often it is made."""
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    cpu = device.type == "cpu"
    meeting = InitProcessGroupKwargs(backend="gloo" if cpu else "nccl", timeout=PATIENCE)
    # Both named, or else accelerate takes them from the user's own configuration; autocast is the trainer's.
    return Accelerator(cpu=cpu, mixed_precision="no", dynamo_backend="no", kwargs_handlers=[meeting])


class _Gather(torch.autograd.Function):
    """All processes' rows. Backward sums what all of them make of this process's rows.

    As every process computes the same loss of the whole batch, that sum is ``count`` times the gradient, and
    the mean over processes that :meth:`DistributedContext.prepare` takes of the weights' gradients makes it
    right again.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, context: DistributedContext) -> Tensor:
        ctx.context = context
        every = rows.new_empty(context.count * len(rows), *rows.shape[1:])
        distributed.all_gather_into_tensor(every, rows.contiguous())
        return every

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # Every process computes every row's loss, which costs little beside the backbone: for a ResNet-18 on
        # 32x32 images and 256 of them a process, 12 % of a step at batches of 8,192 and half at 16,384.
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total[ctx.context.share(len(total))], None

"""Train one model in several processes, each on its share of every batch.

A *rank* is the number of a process in the order of the launcher (``torchrun``, ``accelerate launch``). The
launcher sets environment variables with the number of processes and their meeting point. Each process holds
the whole model and the rows ``share(B)`` of a batch of B. :meth:`DistributedContext.gather` restores the
whole batch before any code compares its rows. A loss, a dictionary or a balance is therefore the same in
all processes, and the same as in a single process.

accelerate connects the processes and averages the gradients. Its gather carries no gradient and its data
loaders shuffle by their own rules, so this module uses neither. accelerate is imported only if there are
several processes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from ebsc_core.utils import signals
from ebsc_core.utils.errors import DeviceError, EbscError, TrainingError
from ebsc_core.utils.launched import GRACE, check_numbers, process_count

T = TypeVar("T")

# A process waits this long for another before it gives up. Reading data may take one process longer than
# another, but less than this.
PATIENCE = timedelta(minutes=10)


@dataclass(frozen=True)
class DistributedContext:
    """Describe this process among those that train together; by default it is the only one."""

    index: int = 0
    count: int = 1
    local_index: int = 0
    """The index among the processes on the same machine."""

    @classmethod
    def join(cls, device: torch.device) -> DistributedContext:
        """Connect to the other processes of the launcher; without a launcher, return ``SINGLE_PROCESS``.

        Raises
        ------
        DeviceError
            If the other processes cannot be reached.
        """
        count = process_count()
        if count == 1:
            return SINGLE_PROCESS
        check_numbers()
        # Pass the device: on a machine without CUDA, accelerate would otherwise take torchrun's processes
        # for independent ones.
        try:
            state = _accelerator(device).state
        except (ValueError, RuntimeError, OSError) as error:
            where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DeviceError(f"{count} processes could not meet at {where}: {reason}") from error
        if state.num_processes != count:
            raise DeviceError(f"{state.num_processes} of {count} processes met; see docs/scale.md")
        # The first process handles signals and decides what to save.
        signals.follow() if state.process_index else signals.listen()
        return cls(state.process_index, count, state.local_process_index)

    @property
    def main(self) -> bool:
        """Return whether this process writes the files."""
        return self.index == 0

    def share(self, n: int) -> slice:
        """Return the slice of ``n`` rows for this process; :attr:`count` must divide ``n``."""
        each = n // self.count
        return slice(self.index * each, (self.index + 1) * each)

    def gather(self, rows: Tensor) -> Tensor:
        """Gather the rows ``(n, …)`` of all processes in rank order, ``(count * n, …)``, with gradients."""
        return rows if self.count == 1 else _Gather.apply(rows, self)

    def gather_views(self, rows: Tensor) -> Tensor:
        """Gather rows ``(2n, …)`` that hold view a and then view b of ``n`` images, with gradients.

        The result ``(2 * count * n, …)`` holds view a of all processes and then view b of all processes.
        """
        if self.count == 1:
            return rows
        return self.gather(rows).unflatten(0, (self.count, 2, -1)).transpose(0, 1).flatten(0, 2)

    @torch.no_grad()
    def mean_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the processes, in one exchange."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        means = (flat / self.count).split([tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.copy_(mean.view_as(tensor))

    def broadcast(self, value: T) -> T:
        """Return the first process's value (a plain Python object) in all processes."""
        if self.count == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values)
        return values[0]

    @torch.no_grad()
    def copy_(self, module: nn.Module) -> None:
        """Copy the weights and buffers of ``module`` from the first process to all others."""
        if self.count > 1:
            for tensor in module.state_dict().values():
                sent = tensor.contiguous()
                distributed.broadcast(sent, src=0)
                tensor.copy_(sent)

    def same(self, value: str) -> bool:
        """Return whether all processes pass the same value."""
        return len(set(self._all(value))) == 1

    def in_turn(self, call: Callable[[], T]) -> T:
        """Call in one process per machine first, then in the others, which find its downloads."""
        for first in (True, False):
            with self.synchronized_errors():
                if (self.local_index == 0) == first:
                    value = call()
        return value

    @contextmanager
    def synchronized_errors(self) -> Iterator[None]:
        """Make all processes raise an error if one of them raises an ``EbscError`` inside the block.

        If several processes raise one, all raise the error of the lowest rank.
        """
        if self.count == 1:
            yield
            return
        own_error = None
        try:
            yield
        except EbscError as error:
            own_error = str(error)
        for index, text in enumerate(self._all(own_error)):
            if text is not None:
                raise SynchronizedError(text if index == 0 else f"process {index} of {self.count}: {text}")

    @contextmanager
    def together(self) -> Iterator[None]:
        """Name the process in an error that ends only one process.

        The other processes lose their connection to it. Their error says that another process failed.
        """
        try:
            yield
        except EbscError as error:
            if self.main or isinstance(error, SynchronizedError):
                raise
            raise type(error)(f"process {self.index} of {self.count}: {error}") from error
        except RuntimeError as error:
            # gloo raises a plain RuntimeError.
            if self.count == 1 or not (isinstance(error, distributed.DistError) or "gloo" in str(error)):
                raise
            if signals.asked_to_end():
                raise KeyboardInterrupt from error
            with suppress(KeyboardInterrupt):
                time.sleep(GRACE)  # on the same machine, the launcher ends this process and reports the cause
            raise TrainingError(
                f"process {self.index} of {self.count} lost the others; "
                "see the error of the process that ended first"
            ) from error

    def _all(self, value: T) -> list[T]:
        """Return the values (plain Python objects) of all processes, in rank order."""
        values = [value] * self.count
        if self.count > 1:
            distributed.all_gather_object(values, value)
        return values

    def prepare(self, module: nn.Module) -> nn.Module:
        """Wrap the module for training, so that ``backward`` averages the gradients over the processes.

        Every trainable parameter must take part in every step. The wrapped module shares its weights, and
        thus ``state_dict``, with ``module``.
        """
        if self.count == 1:
            return module
        return _accelerator(next(module.parameters()).device).prepare(module)

    def close(self) -> DistributedContext:
        """Wait for the other processes, disconnect and return ``SINGLE_PROCESS``."""
        if self.count > 1:
            distributed.barrier()
            distributed.destroy_process_group()
        return SINGLE_PROCESS


SINGLE_PROCESS = DistributedContext()


class SynchronizedError(EbscError):
    """Report an error that all processes raise together."""


def _accelerator(device: torch.device) -> Any:
    """Return the accelerator of this process; repeated calls share one state."""
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    cpu = device.type == "cpu"
    meeting = InitProcessGroupKwargs(backend="gloo" if cpu else "nccl", timeout=PATIENCE)
    # Set both, because accelerate otherwise reads them from the user's configuration. The trainer does
    # autocast.
    return Accelerator(cpu=cpu, mixed_precision="no", dynamo_backend="no", kwargs_handlers=[meeting])


class _Gather(torch.autograd.Function):
    """Gather the rows of all processes; backward sums the gradients of each process's rows.

    Every process computes the same loss of the whole batch, so the sum over processes is ``count`` times
    the gradient. :meth:`DistributedContext.prepare` averages the gradients of the weights over the
    processes, which removes that factor.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, context: DistributedContext) -> Tensor:
        ctx.context = context
        every = rows.new_empty(context.count * len(rows), *rows.shape[1:])
        distributed.all_gather_into_tensor(every, rows.contiguous())
        return every

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # Every process computes the loss of every row. This costs little compared with the backbone: for a
        # ResNet-18 on 32x32 images and 256 of them a process, 12 % of a step at batches of 8,192 and half
        # at 16,384.
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total[ctx.context.share(len(total))], None

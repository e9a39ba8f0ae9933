"""Describe the training state: what a checkpoint contains, and how training resumes from it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ebsc_core.training.checkpoint import Checkpoint, module_tensors, optimizer_tensors, restore

# A warning with these words says that no single run repeats the training.
MIXED = "neither alone gives these features"
# Which fields of a TrainingState a checkpoint holds as tensors, and which as plain values.
TENSORS, NUMBERS = ("figures", "order", "drawn"), ("epoch", "images", "steps")


@dataclass
class Epoch:
    """Hold the results of one epoch of training."""

    stage: str
    loss: float
    """The objective's own loss, as a mean over the epoch."""
    effective_rank: float
    """The effective rank of the expressed rows of the last batch."""
    joint_error: float | None = None
    """The mean squared error of the rows when the other view's rows express them; only in a joint
    phase of the form ``reconstruction``."""

    def figures(self) -> dict[str, float]:
        """Return the figures that are available, by name."""
        return {name: value for name, value in asdict(self).items() if isinstance(value, float)}


def _empty() -> Tensor:
    return torch.empty(0, dtype=torch.uint8)


@dataclass
class TrainingState:
    """Hold the position of training after a step."""

    epoch: int = 0
    images: int = 0
    """The number of images seen in this epoch. It is not a number of steps, so that training can resume
    with another batch size."""
    steps: int = 0
    """The number of steps taken in this epoch."""
    figures: Tensor = field(default_factory=lambda: torch.zeros(2))
    """The sums of the figures of these steps."""
    order: Tensor = field(default_factory=_empty)
    """The state of the generator before it drew this epoch's order."""
    drawn: Tensor = field(default_factory=_empty)
    """The state of the generator before it draws the next step's views."""

    @property
    def begun(self) -> bool:
        """Whether there is anything to save."""
        return self.epoch > 0 or self.images > 0


def make_checkpoint(
    modules: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
    tensors: dict[str, Tensor],
    record: dict[str, Any],
) -> Checkpoint:
    """Collect everything that is needed to resume from ``state`` with the same result.

    Parameters
    ----------
    tensors, record : dict
        What the caller needs in addition, as tensors and as plain values.
    """
    all_tensors = module_tensors(modules) | optimizer_tensors(optimizer)
    # The file format calls the state its standing.
    all_tensors |= {f"standing.{name}": getattr(state, name) for name in TENSORS}
    return all_tensors | tensors, {name: getattr(state, name) for name in NUMBERS} | record


def resume(
    checkpoint: Checkpoint,
    modules: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> TrainingState:
    """Load a checkpoint into modules and optimiser; return the position in training.

    Raises
    ------
    DataError
        If the checkpoint does not fit. In this case nothing changes.
    """
    tensors, record = checkpoint
    restore(tensors, modules, optimizer)
    return TrainingState(
        **{name: record[name] for name in NUMBERS},
        figures=tensors["standing.figures"].to(device),
        order=tensors["standing.order"],
        drawn=tensors["standing.drawn"],
    )


def catch_up(schedule: torch.optim.lr_scheduler.LRScheduler, steps: int) -> None:
    """Advance a new schedule by this many steps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warning that no step of the optimiser came before
        for _ in range(steps):
            schedule.step()


def changes(before: Mapping[str, Any], now: Mapping[str, Any], epoch: int) -> Iterator[str]:
    """Yield a warning for each way in which training resumes differently than it started.

    Parameters
    ----------
    before, now : mapping
        ``batch_size``, ``bf16`` and ``parts``, the distribution and version of each component that trains.
    epoch : int
        The first epoch that is trained in the new way, counted from 1.
    """
    if (earlier := _conditions(before)) != (later := _conditions(now)):
        yield f"trained in {earlier}, from epoch {epoch} on in {later}: {MIXED}"
    if before["parts"] != now["parts"]:
        earlier, later = (
            ", ".join(sorted(set(conditions["parts"].values()))) for conditions in (before, now)
        )
        yield f"trained with {earlier}, from epoch {epoch} on with {later}: {MIXED}"


def _conditions(conditions: Mapping[str, Any]) -> str:
    return f"batches of {conditions['batch_size']} in {'bf16' if conditions['bf16'] else 'fp32'}"

"""How far training has come, as a checkpoint holds it, and resuming from there."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ebsc_core.training.checkpoint import Checkpoint, module_tensors, optimizer_tensors, restore

# Which fields of a TrainingState a checkpoint holds as tensors, and which as plain values.
TENSORS, NUMBERS = ("figures", "order", "drawn"), ("epoch", "images", "steps")


@dataclass
class Epoch:
    """What one epoch of training came to."""

    stage: str
    loss: float
    """The objective's own, mean over the epoch."""
    effective_rank: float
    """Of the expressed rows of the last batch."""
    joint_error: float | None = None
    """Mean squared error of the rows expressed by the other view's rows, in the joint phase."""

    def figures(self) -> dict[str, float]:
        """The numbers that there are, by name."""
        return {name: value for name, value in asdict(self).items() if isinstance(value, float)}


def _empty() -> Tensor:
    return torch.empty(0, dtype=torch.uint8)


@dataclass
class TrainingState:
    """Where training stands after a step."""

    epoch: int = 0
    images: int = 0
    """Seen of this epoch's order; not steps, so that another batch size can go on from here."""
    steps: int = 0
    """Taken in this epoch."""
    figures: Tensor = field(default_factory=lambda: torch.zeros(2))
    """Sums of their figures."""
    order: Tensor = field(default_factory=_empty)
    """State of the generator that this epoch's order was drawn from."""
    drawn: Tensor = field(default_factory=_empty)
    """State that the next step's views are drawn from."""

    @property
    def begun(self) -> bool:
        """Whether there is anything to keep."""
        return self.epoch > 0 or self.images > 0


def make_checkpoint(
    modules: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
    tensors: dict[str, Tensor],
    record: dict[str, Any],
) -> Checkpoint:
    """Return all that is needed to resume from ``state`` as these modules and their optimiser would.

    Parameters
    ----------
    tensors, record : dict
        What else whoever trains needs for that, tensors and plain values.
    """
    all_tensors = module_tensors(modules) | optimizer_tensors(optimizer)
    # The prefix is that of the file format.
    all_tensors |= {f"standing.{name}": getattr(state, name) for name in TENSORS}
    return all_tensors | tensors, {name: getattr(state, name) for name in NUMBERS} | record


def resume(
    checkpoint: Checkpoint,
    modules: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> TrainingState:
    """Bring modules and optimiser to where others were; returns where in training that is.

    Raises
    ------
    DataError
        If what is kept does not fit. Nothing has changed then.
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
    """Bring a new schedule to where it is after so many steps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no optimiser's step came before
        for _ in range(steps):
            schedule.step()


def changes(before: Mapping[str, Any], now: Mapping[str, Any], epoch: int) -> Iterator[str]:
    """What to warn of where training goes on otherwise than it was begun: a sentence each.

    Parameters
    ----------
    before, now : mapping
        ``batch_size``, ``bf16`` and ``parts``, the distribution and version of each part that trains.
    epoch : int
        The first that is trained so, counted from 1.
    """
    if (was := _conditions(before)) != (way := _conditions(now)):
        yield f"trained in {was}, from epoch {epoch} on in {way}: neither alone gives these features"
    if before["parts"] != now["parts"]:
        was, way = (", ".join(sorted(set(made["parts"].values()))) for made in (before, now))
        yield f"trained with {was}, from epoch {epoch} on with {way}: neither alone gives these features"


def _conditions(made: Mapping[str, Any]) -> str:
    return f"batches of {made['batch_size']} in {'bf16' if made['bf16'] else 'fp32'}"

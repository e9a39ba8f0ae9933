"""How far training has come: what a trainer keeps of itself, and how it goes on from that."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ebsc_core.training.checkpoint import Kept, module_tensors, optimiser_tensors, restore

if TYPE_CHECKING:
    from ebsc_core.training.joint import JointTrainer


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


def _nothing() -> Tensor:
    return torch.empty(0, dtype=torch.uint8)


@dataclass
class Standing:
    """Where training stands after a step."""

    epoch: int = 0
    images: int = 0
    """Seen of this epoch's order; not steps, so that another batch size can go on from here."""
    steps: int = 0
    """Taken in this epoch."""
    figures: Tensor = field(default_factory=lambda: torch.zeros(2))
    """Sums of their figures."""
    order: Tensor = field(default_factory=_nothing)
    """State of the generator that this epoch's order was drawn from."""
    drawn: Tensor = field(default_factory=_nothing)
    """State that the next step's views are drawn from."""

    @property
    def begun(self) -> bool:
        """Whether there is anything to keep."""
        return self.epoch > 0 or self.images > 0


def state_of(trainer: JointTrainer) -> Kept:
    """All that another trainer needs to go on as this one would."""
    standing = trainer.standing
    tensors = module_tensors(_modules(trainer)) | optimiser_tensors(trainer.optimiser)
    tensors |= {f"standing.{name}": getattr(standing, name) for name in ("figures", "order", "drawn")}
    tensors |= {"memory": trainer.step.memory, "random": torch.get_rng_state()}
    if trainer.clusters is not None:
        tensors["clusters"] = trainer.clusters
    record = {name: getattr(standing, name) for name in ("epoch", "images", "steps")}
    return tensors, record | {
        "history": [asdict(epoch) for epoch in trainer.history],
        "warnings": trainer.warnings,
        "collapsed": trainer.collapsed,
        "seconds": trainer.seconds,
        "batch_size": trainer.batch_size,
        "bf16": trainer.step.bf16,
        "parts": trainer.parts,
    }


def go_on(trainer: JointTrainer, kept: Kept, total: int) -> None:
    """Bring a trainer to where another one was; the schedule as far as leaves it ``total`` steps in all.

    Raises
    ------
    DataError
        If what is kept does not fit. Nothing has changed then.
    """
    tensors, record = kept
    step, progress, device = trainer.step, trainer.progress, trainer.step.device
    restore(tensors, _modules(trainer), trainer.optimiser)
    trainer.standing = Standing(
        **{name: record[name] for name in ("epoch", "images", "steps")},
        figures=tensors["standing.figures"].to(device),
        order=tensors["standing.order"],
        drawn=tensors["standing.drawn"],
    )
    trainer.generator.set_state(trainer.standing.drawn)
    trainer.history = [Epoch(**epoch) for epoch in record["history"]]
    trainer.collapsed, trainer.earlier = record["collapsed"], record["seconds"]
    step.memory = tensors["memory"].to(device)
    if "clusters" in tensors:
        trainer.clusters = tensors["clusters"].to(device)
    if step.ranks.main:  # the others have drawn otherwise
        torch.set_rng_state(tensors["random"])
    done = total - trainer.steps_left()
    step.objective.resume(done)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no optimiser's step came before
        for _ in range(done):
            trainer.schedule.step()
    epoch, epochs = min(trainer.standing.epoch + 1, trainer.options.epochs), trainer.options.epochs
    progress.note(f"training goes on from epoch {epoch} of {epochs}, as it was kept")
    for warning in record["warnings"]:
        trainer.warn(warning)
    before, now = _way(record["batch_size"], record["bf16"]), _way(trainer.batch_size, step.bf16)
    if before != now:
        trainer.warn(
            f"trained in {before}, from epoch {epoch} on in {now}: neither alone gives these features"
        )
    if record["parts"] != trainer.parts:
        was, now = (", ".join(sorted(set(parts.values()))) for parts in (record["parts"], trainer.parts))
        trainer.warn(
            f"trained with {was}, from epoch {epoch} on with {now}: neither alone gives these features"
        )


def _way(batch_size: int, bf16: bool) -> str:
    return f"batches of {batch_size} in {'bf16' if bf16 else 'fp32'}"


def _modules(trainer: JointTrainer) -> dict[str, nn.Module]:
    modules = {"objective": trainer.step.objective, "model": trainer.step.model}
    return {name: module for name, module in modules.items() if module is not None}

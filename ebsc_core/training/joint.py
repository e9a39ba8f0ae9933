"""The joint mini-batch trainer: objective alone first, then objective and coefficient model together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ebsc_core.config import TrainOptions
from ebsc_core.data.source import ImageSource
from ebsc_core.data.view_parameters import ViewParameters, draw_parameters
from ebsc_core.errors import TrainingError
from ebsc_core.progress import Progress
from ebsc_core.training.collapse import collapse_warning, effective_rank
from ebsc_core.training.step import JointStep
from ebsc_core.training.trial import backbones, run_eagerly

WARM_UP_SHARE = 0.1
# Reading a loss makes a GPU wait; this many steps apart it does not show.
READ_EVERY = 20


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


@dataclass
class JointTrainer:
    """Repeats a :class:`JointStep`: of the objective alone, then from ``joint.start`` on of its model too."""

    step: JointStep
    images: ImageSource
    options: TrainOptions
    batch_size: int
    n_clusters: int
    seed: int
    progress: Progress
    history: list[Epoch] = field(default_factory=list)
    collapsed: bool = False

    def __post_init__(self) -> None:
        self.steps = len(self.images) // self.batch_size
        # Views and order come from one CPU generator, so that a seed means the same on every device.
        self.generator = torch.Generator().manual_seed(self.seed)

    @property
    def joint_epoch(self) -> int:
        """The first epoch of the joint phase, counted from 0."""
        if self.step.model is None:
            return self.options.epochs
        return round(self.step.joint.start * self.options.epochs)

    @property
    def compilable_steps(self) -> int:
        """Steps, from the first on, that a compiled backbone serves.

        Compiled code has one gradient, that of all its weights. Where the joint phase balances its losses it
        asks for that of the last weights alone, which would take as long.
        """
        balances = self.step.model is not None and self.step.joint.weight > 0
        return self.steps * (self.joint_epoch if balances else self.options.epochs)

    def fit(self) -> None:
        """Train in place; nothing runs compiled afterwards.

        Raises
        ------
        TrainingError
            If the loss stops being finite.
        """
        total = self.options.epochs * self.steps
        if self.step.ranks.count > 1:  # what a layer draws for its images is not what others draw for theirs
            torch.manual_seed(self.seed + self.step.ranks.index)
        self.step.objective.train().before_training(total)
        optimiser, schedule = self._optimiser(total)
        for stage, first, last in self._stages():
            if first * self.steps >= self.compilable_steps:
                run_eagerly(backbones(self.step.objective))
            before = self.history[-1].effective_rank if self.history else None
            per_epoch = self.steps * self.batch_size
            self.progress.start(f"{stage} training", (last - first) * per_epoch, "images")
            for epoch in range(first, last):
                done = self._epoch(stage, (epoch - first) * per_epoch, optimiser, schedule)
                self.history.append(done)
                if epoch >= self.options.epochs * WARM_UP_SHARE:
                    self._watch(epoch, done, before if stage == "joint" else None)
            self.progress.finish(f"effective rank {done.effective_rank:.1f} of {self.step.width}")
        run_eagerly(backbones(self.step.objective))

    def _stages(self) -> list[tuple[str, int, int]]:
        """Name, first epoch and end of each stage that has any epochs."""
        stages = [("warm-up", 0, self.joint_epoch), ("joint", self.joint_epoch, self.options.epochs)]
        return [(name, first, last) for name, first, last in stages if last > first]

    def _watch(self, epoch: int, done: Epoch, rank_before_joint: float | None) -> None:
        """Say it once if the representation collapses."""
        warning = collapse_warning(done.effective_rank, self.step.width, self.n_clusters, rank_before_joint)
        if warning and not self.collapsed:
            self.collapsed = True
            self.progress.warn(f"epoch {epoch + 1}: {warning}")

    def _optimiser(self, total: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        parameters = [p for p in self.step.objective.parameters() if p.requires_grad]
        if self.step.model is not None:
            parameters += list(self.step.model.parameters())
        optimiser = torch.optim.AdamW(
            parameters, lr=self.options.lr, weight_decay=self.options.weight_decay, fused=True
        )
        rise = max(1, round(WARM_UP_SHARE * total))
        schedule = torch.optim.lr_scheduler.SequentialLR(
            optimiser,
            [
                torch.optim.lr_scheduler.LinearLR(optimiser, 1 / rise, 1.0, rise),
                torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, total - rise)),
            ],
            [rise],
        )
        return optimiser, schedule

    def _batches(self) -> Iterator[tuple[Tensor, tuple[ViewParameters, ViewParameters]]]:
        """Images on the device and what is drawn for their two views, until the epoch is over.

        Several processes draw the same and take their share of it, so that they see what one would.
        """
        order = torch.randperm(len(self.images), generator=self.generator)
        share = self.step.ranks.share(self.batch_size)
        plan = [chosen[share] for chosen in order.split(self.batch_size)[: self.steps]]
        for images in self.images.batches(plan, self.step.device):
            yield images, (self._draw().rows(share), self._draw().rows(share))

    def _draw(self) -> ViewParameters:
        shape = torch.Size([self.batch_size, *self.images.shape])
        return draw_parameters(shape, self.step.views, self.generator)

    def _epoch(
        self,
        stage: str,
        images_done: int,
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
    ) -> Epoch:
        sums = torch.zeros(2, device=self.step.device)
        self.step.forget()
        for step, (images, parameters) in enumerate(self._batches(), 1):
            losses = self.step(images, parameters, joint=stage == "joint")
            optimiser.zero_grad(set_to_none=True)
            losses.total.backward()
            self._average()
            optimiser.step()
            schedule.step()
            self.step.objective.after_step()
            sums += losses.figures
            if step % READ_EVERY == 0 or step == self.steps:
                self._check(losses.total.item())
                loss = sums[0].item() / step
                self.progress.advance(images_done + step * self.batch_size, {"loss": loss})
        loss, error = (sums / self.steps).tolist()
        return Epoch(stage, loss, effective_rank(losses.rows), error if stage == "joint" else None)

    def _average(self) -> None:
        """The coefficient model's gradients over processes: equal but for rounding, and to stay equal."""
        if self.step.model is not None:
            self.step.ranks.mean_([p.grad for p in self.step.model.parameters() if p.grad is not None])

    def _check(self, loss: float) -> None:
        if not -float("inf") < loss < float("inf"):
            raise TrainingError(
                f"training diverged: the loss is {loss}; "
                "lower train.lr or joint.weight, or use --precision fp32"
            )

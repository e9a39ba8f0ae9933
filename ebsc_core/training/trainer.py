"""The joint mini-batch trainer: objective alone first, then objective and coefficient model together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ebsc_core.config.schema import TrainOptions
from ebsc_core.data.features.effective_rank import effective_rank
from ebsc_core.data.images.source import ImageSource
from ebsc_core.data.views.parameters import ViewParameters, draw_parameters
from ebsc_core.plugins.observers import Observers
from ebsc_core.training.checkpoint import Checkpoint, CheckpointStore, interruption
from ebsc_core.training.collapse import collapse_warning
from ebsc_core.training.precision import backbones, run_eagerly, running_eagerly
from ebsc_core.training.state import Epoch, TrainingState, catch_up, changes, make_checkpoint, resume
from ebsc_core.training.step import JointStep
from ebsc_core.utils.device import move
from ebsc_core.utils.errors import DataError, Interrupted, TrainingError
from ebsc_core.utils.progress import Progress

WARM_UP_SHARE = 0.1
# Reading a loss makes a GPU wait; this many steps apart it does not show.
READ_EVERY = 20


@dataclass
class Trainer:
    """Repeats a :class:`JointStep`: of the objective alone, then from ``joint.start`` on of its model too."""

    step: JointStep
    images: ImageSource
    options: TrainOptions
    batch_size: int
    n_clusters: int
    seed: int
    progress: Progress
    checkpoints: CheckpointStore | None = None
    """Where training is kept, now and then and when it is interrupted."""
    observers: Observers = field(default_factory=Observers)
    """Told of every epoch."""
    partition: Callable[[], Tensor] | None = None
    """Clusters all images as the network sees them now, ``(N,)`` int64; for the form ``prototypes``."""
    parts: dict[str, str] = field(default_factory=dict)
    """Distribution and version of each part that trains."""
    history: list[Epoch] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    collapsed: bool = False
    earlier: float = 0.0
    """Seconds that training had taken when it was kept."""

    def __post_init__(self) -> None:
        self.steps = len(self.images) // self.batch_size
        # Views and order come from one CPU generator, so that a seed means the same on every device.
        self.generator = torch.Generator().manual_seed(self.seed)
        self.state = TrainingState()
        self.clusters: Tensor | None = None
        """The last partition of the images, on the device."""
        self.interrupted: Callable[[], bool] = lambda: False

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
        joint = self.step.joint
        balances = self.step.model is not None and joint.weight > 0 and joint.form != "prototypes"
        return self.steps * (self.joint_epoch if balances else self.options.epochs)

    def fit(self, checkpoint: Checkpoint | None = None) -> None:
        """Train in place, from the start or from what was kept; nothing runs compiled afterwards.

        Raises
        ------
        TrainingError
            If the loss stops being finite.
        Interrupted
            On Ctrl-C, where training is kept.
        """
        self.began = time.perf_counter()
        total = self.options.epochs * self.steps
        if (
            self.step.distributed.count > 1
        ):  # what a layer draws for its images is not what others draw for theirs
            torch.manual_seed(self.seed + self.step.distributed.index)
        self.step.objective.train().before_training(total)
        self.optimizer, self.schedule = self._optimizer(total)
        if checkpoint:
            try:
                self._resume(checkpoint, total)
            except DataError as error:
                self.progress.warn(f"training starts afresh: what was kept cannot be used ({error})")
        with interruption() if self.checkpoints else nullcontext(self.interrupted) as self.interrupted:
            for stage, first, last in self._stages():
                if first * self.steps >= self.compilable_steps:
                    run_eagerly(backbones(self.step.objective))
                if self.state.epoch < last:
                    self._train(stage, first, last)
        run_eagerly(backbones(self.step.objective))

    def _train(self, stage: str, first: int, last: int) -> None:
        """The epochs of a stage that are still to come."""
        before = self.history[first - 1].effective_rank if first else None
        per_epoch, begun = self.steps * self.batch_size, self.state
        done_before = (begun.epoch - first) * per_epoch + begun.images
        self.progress.start(f"{stage} training", (last - first) * per_epoch - done_before, "images")
        for epoch in range(begun.epoch, last):
            if stage == "joint" and not self.state.images:
                self._renew_partition(epoch - first)
            done = self._epoch(stage, (epoch - first) * per_epoch - done_before)
            self.history.append(done)
            self.state = TrainingState(epoch + 1, drawn=self.generator.get_state())
            self.observers.epoch_finished(stage, epoch + 1, self.options.epochs, done.figures())
            if epoch >= self.options.epochs * WARM_UP_SHARE:
                self._warn_of_collapse(epoch, done, before if stage == "joint" else None)
            self._pause()
        self.progress.finish(f"effective rank {done.effective_rank:.1f} of {self.step.width}")

    def _renew_partition(self, epoch: int) -> None:
        """Cluster all images anew if this epoch of the joint phase, counted from 0, is due for it."""
        if self.partition and (self.clusters is None or epoch % self.step.joint.renew == 0):
            with running_eagerly(backbones(self.step.objective)):
                self.clusters = self.partition().to(self.step.device)
            self.step.objective.train()

    @property
    def seconds(self) -> float:
        """That training has taken, with what it goes on from."""
        return self.earlier + time.perf_counter() - self.began

    def steps_left(self) -> int:
        """How many steps are still to come."""
        epochs = self.options.epochs - self.state.epoch
        return 0 if epochs <= 0 else (epochs - 1) * self.steps + self._steps_of_epoch()

    def _steps_of_epoch(self) -> int:
        """How many are still to come in this one; another batch size may have left less than a batch."""
        return max(1, (len(self.images) - self.state.images) // self.batch_size)

    def save_checkpoint(self) -> str:
        """Keep training as it stands; says so, or nothing if it is not kept."""
        if self.checkpoints is None or not self.state.begun:
            return ""
        try:
            self.checkpoints.save(self._checkpoint())
        except OSError as error:
            self.progress.warn(f"training is not kept: {error}")
            return ""
        epochs = self.options.epochs
        if self.state.epoch == epochs:
            return "; training is done and kept"
        return f"; training is kept and goes on from epoch {self.state.epoch + 1} of {epochs}"

    def _checkpoint(self) -> Checkpoint:
        """All that another trainer needs to go on as this one would."""
        tensors = {"memory": self.step.memory, "random": torch.get_rng_state()}
        if self.clusters is not None:
            tensors["clusters"] = self.clusters
        record = {
            "history": [asdict(epoch) for epoch in self.history],
            "warnings": self.warnings,
            "collapsed": self.collapsed,
            "seconds": self.seconds,
        }
        return make_checkpoint(
            self._modules(), self.optimizer, self.state, tensors, record | self._conditions()
        )

    def _resume(self, checkpoint: Checkpoint, total: int) -> None:
        """Go on from where another trainer was, the schedule as far as leaves it ``total`` steps in all.

        Raises
        ------
        DataError
            If what is kept does not fit. Nothing has changed then.
        """
        (tensors, record), step, epochs = checkpoint, self.step, self.options.epochs
        self.state = resume(checkpoint, self._modules(), self.optimizer, step.device)
        self.generator.set_state(self.state.drawn)
        self.history = [Epoch(**epoch) for epoch in record["history"]]
        self.collapsed, self.earlier = record["collapsed"], record["seconds"]
        step.memory = tensors["memory"].to(step.device)
        if "clusters" in tensors:
            self.clusters = tensors["clusters"].to(step.device)
        if step.distributed.main:  # the others have drawn otherwise
            torch.set_rng_state(tensors["random"])
        done = total - self.steps_left()
        step.objective.resume(done)
        catch_up(self.schedule, done)
        epoch = min(self.state.epoch + 1, epochs)
        self.progress.note(f"training goes on from epoch {epoch} of {epochs}, as it was kept")
        for warning in (*record["warnings"], *changes(record, self._conditions(), epoch)):
            self.warn(warning)

    def _conditions(self) -> dict[str, Any]:
        """How it trains, as far as that may be another where training goes on."""
        return {"batch_size": self.batch_size, "bf16": self.step.bf16, "parts": self.parts}

    def _modules(self) -> dict[str, nn.Module]:
        modules = {"objective": self.step.objective, "model": self.step.model}
        return {name: module for name, module in modules.items() if module is not None}

    def _pause(self) -> None:
        """Stop if the user has asked for it; keep training then, and when it is time to."""
        if self.interrupted():
            raise Interrupted(f"interrupted{self.save_checkpoint() or '; nothing was written'}")
        if self.checkpoints and self.checkpoints.due():
            self.save_checkpoint()

    def warn(self, message: str) -> None:
        """A warning that whoever goes on from here is to hear of, too."""
        self.warnings.append(message)
        self.progress.warn(message)

    def _stages(self) -> list[tuple[str, int, int]]:
        """Name, first epoch and end of each stage that has any epochs."""
        stages = [("warm-up", 0, self.joint_epoch), ("joint", self.joint_epoch, self.options.epochs)]
        return [(name, first, last) for name, first, last in stages if last > first]

    def _warn_of_collapse(self, epoch: int, done: Epoch, rank_before_joint: float | None) -> None:
        """Say it once if the representation collapses."""
        warning = collapse_warning(done.effective_rank, self.step.width, self.n_clusters, rank_before_joint)
        if warning and not self.collapsed:
            self.collapsed = True
            self.warn(f"epoch {epoch + 1}: {warning}")

    def _optimizer(self, total: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        parameters = [p for p in self.step.objective.parameters() if p.requires_grad]
        if self.step.model is not None:
            parameters += list(self.step.model.parameters())
        optimizer = torch.optim.AdamW(
            parameters, lr=self.options.lr, weight_decay=self.options.weight_decay, fused=True
        )
        rise = max(1, round(WARM_UP_SHARE * total))
        schedule = torch.optim.lr_scheduler.SequentialLR(
            optimizer,
            [
                torch.optim.lr_scheduler.LinearLR(optimizer, 1 / rise, 1.0, rise),
                torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, total - rise)),
            ],
            [rise],
        )
        return optimizer, schedule

    def _batches(self) -> Iterator[tuple[Tensor, tuple[ViewParameters, ViewParameters], Tensor | None]]:
        """Images on the device and what is drawn for their two views, until the epoch is over.

        With a partition, the clusters of the whole batch, too.

        Several processes draw the same and take their share of it, so that they see what one would.
        """
        state, share = self.state, self.step.distributed.share(self.batch_size)
        if state.images:  # within an epoch, whose order was drawn before
            self.generator.set_state(state.order)
        state.order = self.generator.get_state()
        order = torch.randperm(len(self.images), generator=self.generator)
        if state.images:
            self.generator.set_state(state.drawn)
        rest = order[min(state.images, len(order) - self.batch_size) :]
        plan = rest.split(self.batch_size)[: self._steps_of_epoch()]
        batches = self.images.batches([chosen[share] for chosen in plan], self.step.device)
        for chosen, images in zip(plan, batches, strict=True):
            clusters = None
            if self.clusters is not None:
                clusters = self.clusters[move(chosen, self.step.device)]
            yield images, (self._draw().rows(share), self._draw().rows(share)), clusters

    def _draw(self) -> ViewParameters:
        shape = torch.Size([self.batch_size, *self.images.shape])
        return draw_parameters(shape, self.step.views, self.generator)

    def _epoch(self, stage: str, images_done: int) -> Epoch:
        state, last = self.state, self._steps_of_epoch()
        if not state.images:
            state.figures = torch.zeros(2, device=self.step.device)
            self.step.forget()
        for step, (images, parameters, clusters) in enumerate(self._batches(), 1):
            losses = self.step(images, parameters, stage == "joint", clusters)
            self.optimizer.zero_grad(set_to_none=True)
            losses.total.backward()
            self._average()
            self.optimizer.step()
            self.schedule.step()
            self.step.objective.after_step()
            state.figures += losses.figures
            state.steps += 1
            state.images += self.batch_size
            state.drawn = self.generator.get_state()
            if step % READ_EVERY == 0 or step == last:
                self._check(losses.total.item())
                loss = state.figures[0].item() / state.steps
                self.progress.advance(images_done + state.images, {"loss": loss})
            if step < last:
                self._pause()
        loss, error = (state.figures / state.steps).tolist()
        return Epoch(stage, loss, effective_rank(losses.rows), error if stage == "joint" else None)

    def _average(self) -> None:
        """The coefficient model's gradients over processes: equal but for rounding, and to stay equal."""
        if self.step.model is not None:
            self.step.distributed.mean_([p.grad for p in self.step.model.parameters() if p.grad is not None])

    def _check(self, loss: float) -> None:
        if not -float("inf") < loss < float("inf"):
            raise TrainingError(
                f"training diverged: the loss is {loss}; "
                "lower train.lr or joint.weight, or use `precision=fp32`"
            )

"""Train in mini-batches: the objective alone, or in a joint phase with coefficients."""

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
from ebsc_core.training.checkpoint import Checkpoint, CheckpointStore
from ebsc_core.training.collapse import collapse_warning
from ebsc_core.training.precision import backbones, run_eagerly, running_eagerly
from ebsc_core.training.state import Epoch, TrainingState, catch_up, changes, make_checkpoint, resume
from ebsc_core.training.step import JointStep
from ebsc_core.utils.device import move, random_states, restore_random_states
from ebsc_core.utils.errors import NOTHING_WRITTEN, DataError, Interrupted, TrainingError
from ebsc_core.utils.progress import Progress
from ebsc_core.utils.signals import interruption, must_save

WARM_UP_SHARE = 0.1
MOMENTUM = 0.9
# The host waits for a GPU when it reads a loss; once in this many steps it does not matter.
READ_EVERY = 20
# A joint phase that clusters all images does so at most this many times by default.
RENEWALS = 5


@dataclass(frozen=True)
class Batch:
    """Hold what a step takes: a process's share of the images, and the clusters of the whole batch."""

    images: Tensor
    """uint8, on the device."""
    parameters: tuple[ViewParameters, ViewParameters]
    clusters: Tensor | None
    """The clusters of the whole batch in the partition, if there is one."""
    others: Tensor | None
    """The images of the second views, if these are not the same."""


@dataclass
class Trainer:
    """Repeat a :class:`JointStep`: with the objective alone, then in a joint phase if there is one."""

    step: JointStep
    images: ImageSource
    options: TrainOptions
    batch_size: int
    n_clusters: int
    seed: int
    progress: Progress
    checkpoints: CheckpointStore | None = None
    """Saves checkpoints at intervals and on interruption."""
    observers: Observers = field(default_factory=Observers)
    """Get the results of every epoch."""
    partition: Callable[[], tuple[Tensor | None, Tensor, float]] | None = None
    """Clusters all images with the current network, for the form ``neighbors``. Returns the clusters
    ``(N,)`` and the neighbors ``(N, k)`` of all images, both int64, and the probability that a neighbor
    gives the second view."""
    parts: dict[str, str] = field(default_factory=dict)
    """Distribution and version of each component that trains."""
    history: list[Epoch] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    collapsed: bool = False
    earlier: float = 0.0
    """The seconds that training took before the checkpoint."""

    def __post_init__(self) -> None:
        self.steps = len(self.images) // self.batch_size
        # One CPU generator draws views and order, so that a seed means the same on every device.
        self.generator = torch.Generator().manual_seed(self.seed)
        self.state = TrainingState()
        self.clusters: Tensor | None = None
        """The clusters in the latest partition of the images, on the device."""
        self.neighbors: Tensor | None = None
        """The neighbors in it, on the CPU."""
        self.share = 0.0
        """The probability that one of the neighbors gives the second view."""
        self.interrupted: Callable[[], bool] = lambda: False

    @property
    def joint_epoch(self) -> int:
        """The first epoch of the joint phase, counted from 0."""
        if self.step.model is None and self.partition is None:
            return self.options.epochs
        return self.step.joint.first_epoch(self.options.epochs)

    @property
    def compilable_steps(self) -> int:
        """The number of steps, from the first one, that can run with a compiled backbone.

        Compiled code computes one gradient, that of all its weights. When the joint phase balances its
        losses, it needs the gradient of the last weights alone, which would take as long.
        """
        balances = self.step.model is not None and self.step.joint.weight > 0
        return self.steps * (self.joint_epoch if balances else self.options.epochs)

    def fit(self, checkpoint: Checkpoint | None = None) -> None:
        """Train in place, from the start or from a checkpoint; afterwards nothing runs compiled.

        Raises
        ------
        TrainingError
            If the loss is no longer finite.
        Interrupted
            On Ctrl-C and like signals, if there is a place for checkpoints.
        """
        self.began = time.perf_counter()
        total = self.options.epochs * self.steps
        if self.step.distributed.count > 1:  # layers must draw other numbers in each process
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
        """Train the epochs of a stage that remain."""
        before = self.history[first - 1].effective_rank if first else None
        per_epoch, begun = self.steps * self.batch_size, self.state
        done_before = (begun.epoch - first) * per_epoch + begun.images
        alone = self.joint_epoch == self.options.epochs
        self.progress.start(
            "training" if alone else f"{stage} training", (last - first) * per_epoch - done_before, "images"
        )
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
        """Cluster all images again if this epoch of the joint phase, counted from 0, requires it."""
        renew = self.step.joint.renew or -(-(self.options.epochs - self.joint_epoch) // RENEWALS)
        if self.partition and (self.neighbors is None or epoch % renew == 0):
            with running_eagerly(backbones(self.step.objective)):
                clusters, self.neighbors, self.share = self.partition()
            self.clusters = None if clusters is None else clusters.to(self.step.device)
            self.progress.note(f"up to {self.share:.0%} of the second views are of neighbors")
            self.step.objective.train()

    @property
    def seconds(self) -> float:
        """The seconds that training has taken, including the time before it resumed."""
        return self.earlier + time.perf_counter() - self.began

    def steps_left(self) -> int:
        """Return the number of steps that remain."""
        epochs = self.options.epochs - self.state.epoch
        return 0 if epochs <= 0 else (epochs - 1) * self.steps + self._steps_of_epoch()

    def _steps_of_epoch(self) -> int:
        """Return the number of steps that remain in this epoch, at least 1.

        Less than a batch may remain if training resumed with another batch size.
        """
        return max(1, (len(self.images) - self.state.images) // self.batch_size)

    def save_checkpoint(self) -> str:
        """Save a checkpoint; return a clause that says so, or an empty text if none was saved.

        Raises
        ------
        TrainingError
            If a weight is no longer finite: training that resumed from it could only fail again.
        """
        if self.checkpoints is None or not self.state.begun:
            return ""
        for module in self._modules().values():
            if not all(bool(weight.isfinite().all()) for weight in module.parameters()):
                raise self._divergence("a weight is no longer finite")
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
        """Collect everything that another trainer needs to continue exactly like this one."""
        tensors = random_states(self.step.device)
        if self.clusters is not None:
            tensors["clusters"] = self.clusters
        if self.neighbors is not None:
            tensors["neighbors"] = self.neighbors
            tensors["share"] = torch.tensor(self.share, dtype=torch.float64)
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
        """Resume from a checkpoint; advance the schedule so that ``total`` steps result.

        Raises
        ------
        DataError
            If the checkpoint does not fit. In this case nothing changes.
        """
        (tensors, record), step, epochs = checkpoint, self.step, self.options.epochs
        if "neighbors" in tensors and "share" not in tensors:
            raise DataError("an earlier version kept it")
        self.state = resume(checkpoint, self._modules(), self.optimizer, step.device)
        self.generator.set_state(self.state.drawn)
        self.history = [Epoch(**epoch) for epoch in record["history"]]
        self.collapsed, self.earlier = record["collapsed"], record["seconds"]
        if "clusters" in tensors:
            self.clusters = tensors["clusters"].to(step.device)
        if "neighbors" in tensors:
            self.neighbors, self.share = tensors["neighbors"], tensors["share"].item()
        if step.distributed.main:  # the other processes draw other numbers
            restore_random_states(step.device, tensors)
        done = total - self.steps_left()
        step.objective.resume(done)
        catch_up(self.schedule, done)
        epoch = min(self.state.epoch + 1, epochs)
        self.progress.note(f"training goes on from epoch {epoch} of {epochs}, as it was kept")
        for warning in (*record["warnings"], *changes(record, self._conditions(), epoch)):
            self.warn(warning)

    def _conditions(self) -> dict[str, Any]:
        """Return the settings that may differ when training resumes."""
        return {"batch_size": self.batch_size, "bf16": self.step.bf16, "parts": self.parts}

    def _modules(self) -> dict[str, nn.Module]:
        modules = {"objective": self.step.objective, "model": self.step.model}
        return {name: module for name, module in modules.items() if module is not None}

    def _pause(self) -> None:
        """Stop if a signal asks for it; save a checkpoint then, at intervals, and on request."""
        if self.interrupted():
            raise Interrupted(f"interrupted{self.save_checkpoint() or f'; {NOTHING_WRITTEN}'}")
        if self.checkpoints and must_save():
            self.progress.note(f"asked to save{self.save_checkpoint()}")
        elif self.checkpoints and self.checkpoints.due():
            self.save_checkpoint()

    def warn(self, message: str) -> None:
        """Show a warning, and repeat it if training resumes from here."""
        self.warnings.append(message)
        self.progress.warn(message)

    def _stages(self) -> list[tuple[str, int, int]]:
        """Return name, first epoch and end of each stage that has any epochs."""
        stages = [("warm-up", 0, self.joint_epoch), ("joint", self.joint_epoch, self.options.epochs)]
        return [(name, first, last) for name, first, last in stages if last > first]

    def _warn_of_collapse(self, epoch: int, done: Epoch, rank_before_joint: float | None) -> None:
        """Warn once if the representation collapses."""
        warning = collapse_warning(
            done.effective_rank, self.batch_size, self.step.width, self.n_clusters, rank_before_joint
        )
        if warning and not self.collapsed:
            self.collapsed = True
            self.warn(f"epoch {epoch + 1}: {warning}")

    def _optimizer(self, total: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        parameters = [p for p in self.step.objective.parameters() if p.requires_grad]
        if self.step.model is not None:
            parameters += list(self.step.model.parameters())
        options = self.options.resolved()
        rates: dict[str, Any] = {"lr": options.lr, "weight_decay": options.weight_decay}
        optimizer: torch.optim.Optimizer
        if options.optimizer == "sgd":
            # Not fused: that refuses weights that get their first gradient later, as in the joint phase.
            optimizer = torch.optim.SGD(parameters, momentum=MOMENTUM, **rates)
        else:
            optimizer = torch.optim.AdamW(parameters, fused=True, **rates)
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

    def _batches(self) -> Iterator[Batch]:
        """Yield batches until the epoch ends.

        Several processes draw the same numbers and take their share, so together they see what one process
        would.
        """
        state, share = self.state, self.step.distributed.share(self.batch_size)
        if state.images:  # resumed within an epoch: its order was drawn before
            self.generator.set_state(state.order)
        state.order = self.generator.get_state()
        order = torch.randperm(len(self.images), generator=self.generator)
        seconds = self._second_images()
        if state.images:
            self.generator.set_state(state.drawn)
        rest = order[min(state.images, len(order) - self.batch_size) :]
        plan = rest.split(self.batch_size)[: self._steps_of_epoch()]
        shares = [chosen[share] for chosen in plan]
        if seconds is not None:  # one batch has the images of both views
            shares = [torch.cat([own, seconds[own]]) for own in shares]
        batches = self.images.batches(shares, self.step.device)
        for chosen, images in zip(plan, batches, strict=True):
            clusters = others = None
            if self.clusters is not None:
                clusters = self.clusters[move(chosen, self.step.device)]
            if seconds is not None:
                images, others = images.chunk(2)
            yield Batch(images, (self._draw().rows(share), self._draw().rows(share)), clusters, others)

    def _second_images(self) -> Tensor | None:
        """Draw the image of each image's second view in this epoch, ``(N,)``; None if all are its own."""
        if self.neighbors is None:
            return None
        n, k = self.neighbors.shape
        own, drawn = torch.arange(n), torch.randint(k, (n,), generator=self.generator)
        other = torch.rand(n, generator=self.generator) < self.share
        return torch.where(other, self.neighbors[own, drawn], own)

    def _draw(self) -> ViewParameters:
        shape = torch.Size([self.batch_size, *self.images.shape])
        return draw_parameters(shape, self.step.views, self.generator)

    def _epoch(self, stage: str, images_done: int) -> Epoch:
        state, last = self.state, self._steps_of_epoch()
        if not state.images:
            state.figures = torch.zeros(2, device=self.step.device)
        for step, batch in enumerate(self._batches(), 1):
            losses = self.step(batch.images, batch.parameters, stage == "joint", batch.clusters, batch.others)
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
        expressed = stage == "joint" and self.step.model is not None
        return Epoch(stage, loss, effective_rank(losses.rows), error if expressed else None)

    def _average(self) -> None:
        """Average the coefficient model's gradients over processes, to keep rounding equal."""
        if self.step.model is not None:
            self.step.distributed.mean_([p.grad for p in self.step.model.parameters() if p.grad is not None])

    def _check(self, loss: float) -> None:
        if not -float("inf") < loss < float("inf"):
            raise self._divergence(f"the loss is {loss}")

    def _divergence(self, what: str) -> TrainingError:
        lower = "train.lr or joint.weight" if self.joint_epoch < self.options.epochs else "train.lr"
        return TrainingError(f"training diverged: {what}; lower {lower}, or use `precision=fp32`")

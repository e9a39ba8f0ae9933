"""The joint mini-batch trainer: objective alone first, then objective and coefficient model together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ebsc_core.config import JointChoice, TrainOptions
from ebsc_core.data.view_pixels import draw_view
from ebsc_core.data.views import ViewOptions
from ebsc_core.errors import TrainingError
from ebsc_core.interfaces import Objective, TrainableCoefficientModel, Views
from ebsc_core.progress import Progress
from ebsc_core.ridge import Whitening
from ebsc_core.training.collapse import collapse_warning, effective_rank

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
    """Trains an objective with its backbone and, from ``joint.start`` on, a coefficient model with them.

    In the joint phase each row of view a is expressed by the rows of view b, its own image excluded, and by
    ``joint.memory`` rows that earlier batches of the epoch left behind (in one epoch no image comes twice,
    so none can be expressed by an earlier view of itself). Both are whitened by that dictionary, taken as
    given, if ``whiten`` says so. The coefficient model learns from its own loss on stopped rows. The
    backbone feels the reconstruction error (or the objective's ``agreement`` with the reconstruction)
    through the coefficients as well as through the dictionary, with a gradient ``joint.weight`` times as
    long as the objective's. Keeping the two apart lets the model learn at full speed however gently it may
    pull on the backbone, which collapses when pulled too hard.
    """

    objective: Objective
    model: TrainableCoefficientModel | None
    images: Tensor
    """``(N, C, H, W)`` uint8, on the device or the CPU."""
    device: torch.device
    bf16: bool
    views: ViewOptions
    options: TrainOptions
    batch_size: int
    joint: JointChoice
    whiten: bool
    """Whether rows are whitened before they express one another in the joint phase."""
    express: str
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
        if self.model is None:
            return self.options.epochs
        return round(self.joint.start * self.options.epochs)

    def fit(self) -> None:
        """Train in place.

        Raises
        ------
        TrainingError
            If the loss stops being finite.
        """
        total = self.options.epochs * self.steps
        self.objective.train().before_training(total)
        optimiser, schedule = self._optimiser(total)
        for stage, first, last in self._stages():
            before = self.history[-1].effective_rank if self.history else None
            per_epoch = self.steps * self.batch_size
            self.progress.start(f"{stage} training", (last - first) * per_epoch, "images")
            for epoch in range(first, last):
                done = self._epoch(stage, (epoch - first) * per_epoch, optimiser, schedule)
                self.history.append(done)
                if epoch >= self.options.epochs * WARM_UP_SHARE:
                    self._watch(epoch, done, before if stage == "joint" else None)
            self.progress.finish(f"effective rank {done.effective_rank:.1f} of {self._width()}")

    def _stages(self) -> list[tuple[str, int, int]]:
        """Name, first epoch and end of each stage that has any epochs."""
        stages = [("warm-up", 0, self.joint_epoch), ("joint", self.joint_epoch, self.options.epochs)]
        return [(name, first, last) for name, first, last in stages if last > first]

    def _watch(self, epoch: int, done: Epoch, rank_before_joint: float | None) -> None:
        """Say it once if the representation collapses."""
        warning = collapse_warning(done.effective_rank, self._width(), self.n_clusters, rank_before_joint)
        if warning and not self.collapsed:
            self.collapsed = True
            self.progress.warn(f"epoch {epoch + 1}: {warning}")

    def _width(self) -> int:
        return self.objective.width if self.express == "embeddings" else self.objective.backbone.width

    def _optimiser(self, total: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        parameters = [p for p in self.objective.parameters() if p.requires_grad]
        if self.model is not None:
            parameters += list(self.model.parameters())
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

    def _batches(self) -> Iterator[Tensor]:
        order = torch.randperm(len(self.images), generator=self.generator)
        for step in range(self.steps):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield self.images[chosen.to(self.images.device)].to(self.device)

    def _epoch(
        self,
        stage: str,
        images_done: int,
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
    ) -> Epoch:
        sums = torch.zeros(2, device=self.device)
        self.memory = torch.empty(0, self._width(), device=self.device)
        for step, images in enumerate(self._batches(), 1):
            total, figures, rows = self._losses(images, joint=stage == "joint")
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            optimiser.step()
            schedule.step()
            self.objective.after_step()
            sums += figures
            if step % READ_EVERY == 0 or step == self.steps:
                self._check(total.item())
                loss = sums[0].item() / step
                self.progress.advance(images_done + step * self.batch_size, {"loss": loss})
        loss, error = (sums / self.steps).tolist()
        return Epoch(stage, loss, effective_rank(rows), error if stage == "joint" else None)

    def _losses(self, images: Tensor, joint: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Total loss; the objective's loss and the reconstruction error, stopped; the expressed rows."""
        view_a = draw_view(images, self.views, self.generator)
        view_b = draw_view(images, self.views, self.generator)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            views = self.objective(view_a, view_b)
        plain, dictionary = self._expressed(views)
        if not joint or self.model is None:
            return views.loss, torch.stack([views.loss.detach(), views.loss.new_zeros(())]), plain
        own = torch.arange(len(plain), device=self.device)
        dictionary = torch.cat([dictionary, self.memory])
        self.memory = dictionary.detach()[: self.joint.memory]
        shown = Whitening(dictionary) if self.whiten else nn.Identity()
        rows, dictionary = shown(plain), shown(dictionary)
        stopped, stopped_dictionary = rows.detach(), dictionary.detach()
        model_loss = self.model.loss(stopped, self.model.express(stopped, stopped_dictionary, own))
        with _given(self.model):
            reconstruction = self.model.express(rows, dictionary, own).reconstruction
        error = (rows - reconstruction).square().sum(dim=1).mean()
        agrees = self.joint.form == "agreement"
        pull = self.objective.agreement(reconstruction, rows) if agrees else error
        total = views.loss + model_loss
        if self.joint.weight:
            total = total + self.joint.weight * self._balance(views.loss, pull) * pull
        return total, torch.stack([views.loss, error]).detach(), plain

    def _balance(self, loss: Tensor, pull: Tensor) -> Tensor:
        """How many times longer the objective's gradient is than the pull's, at the backbone's last weights.

        Losses come on scales from 1 (SimSiam) to 100 (Barlow Twins), and the pull fades as it succeeds; as a
        share of the objective's gradient, one weight means the same for all of them, all the time. (Esser et
        al., arXiv:2012.09841, eq. 7, balance two losses so.)
        """
        weights = [p for p in self.objective.backbone.parameters() if p.requires_grad and p.ndim > 1][-1:]
        lengths = [
            torch.autograd.grad(part, weights, retain_graph=True)[0].float().norm() for part in (loss, pull)
        ]
        return lengths[0] / lengths[1].clamp_min(torch.finfo(torch.float32).tiny)

    def _expressed(self, views: Views) -> tuple[Tensor, Tensor]:
        a, b = views.embeddings if self.express == "embeddings" else views.features
        return F.normalize(a.float(), dim=1), F.normalize(b.float(), dim=1)

    def _check(self, loss: float) -> None:
        if not -float("inf") < loss < float("inf"):
            raise TrainingError(
                f"training diverged: the loss is {loss}; "
                "lower train.lr or joint.weight, or use --precision fp32"
            )

    def trial_step(self, bf16: bool, batch: int = 16) -> None:
        """One forward and backward pass on a few images, to time a precision; changes nothing."""
        images = self.images[:batch].to(self.device)
        view = images.float().div(255).contiguous(memory_format=torch.channels_last)
        buffers = {name: buffer.clone() for name, buffer in self.objective.named_buffers()}
        with (
            torch.random.fork_rng(devices=[]),
            torch.autocast(self.device.type, torch.bfloat16, enabled=bf16),
        ):
            self.objective.train()(view, view).loss.backward()
        self.objective.zero_grad(set_to_none=True)
        for name, buffer in self.objective.named_buffers():
            buffer.copy_(buffers[name])


@contextmanager
def _given(model: nn.Module) -> Iterator[None]:
    """What is computed within passes gradients through the model, and none to it."""
    learned = [p for p in model.parameters() if p.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)

"""Compute one step of training: from a batch and the parameters of its views to the losses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ebsc_core.config.schema import JointChoice
from ebsc_core.data.features.whitening import Whitening
from ebsc_core.data.views.apply import apply_view
from ebsc_core.data.views.options import ViewOptions
from ebsc_core.data.views.parameters import ViewParameters
from ebsc_core.plugins.expression import expression_of, loss_of
from ebsc_core.plugins.interfaces import Objective, TrainableCoefficientModel, Views
from ebsc_core.plugins.kinds import Kind
from ebsc_core.plugins.refusal import refuse, require_loss
from ebsc_core.training.prototypes import prototype_scattering
from ebsc_core.utils.distributed import SINGLE_PROCESS, DistributedContext


@dataclass(frozen=True)
class Losses:
    """Hold the losses and figures of a step."""

    total: Tensor
    """The scalar to minimise."""
    figures: Tensor
    """Two figures without gradient, ``(2,)``: the objective's own loss, and the mean squared error of the
    rows when the other view's rows express them (0 if no coefficient model trains along)."""
    rows: Tensor
    """The rows of view a that are expressed, ``(B, D)`` or ``(B, E)``, of unit length, not whitened."""


@dataclass
class JointStep:
    """Compute the loss of an objective and, in the joint phase, of a coefficient model with it.

    In the joint phase the dictionary for each row of view a consists of the rows of view b, except its own
    image. With ``whiten``, rows and dictionary are whitened by the statistics of the dictionary, which get
    no gradient.

    The coefficient model learns from its own loss on detached rows. The backbone gets the gradient of the
    reconstruction error, through the coefficients and through the dictionary. This gradient is
    ``joint.weight`` times as long as that of the objective. With the two losses separate, the model learns
    at full speed even if its pull on the backbone is weak; a strong pull collapses the backbone.

    The form ``neighbors`` has no model here. It uses a partition of all images: its clusters are pushed
    apart, and the caller passes other images for some second views.

    No value is read on the host, so the host never waits for a GPU.
    """

    objective: Objective
    model: TrainableCoefficientModel | None
    """The model that trains along; None without a joint phase, and with ``neighbors``."""
    device: torch.device
    views: ViewOptions
    joint: JointChoice
    whiten: bool
    """Whether rows are whitened before they express each other in the joint phase."""
    express: str
    bf16: bool = False
    n_clusters: int | None = None
    """The number of clusters in the partition, if there is one."""

    def __post_init__(self) -> None:
        self.distributed = SINGLE_PROCESS
        self.network: nn.Module = self.objective

    def join(self, distributed: DistributedContext) -> None:
        """Train together with other processes from now on; the images that come are a share of the batch.

        The losses then describe the whole batch, and are the same in each process.

        Raises
        ------
        ComponentError
            If the network has layers that cannot be computed over several processes.
        """
        if distributed.count > 1:
            from ebsc_core.training.sync_batch_norm import sync_norms  # it imports timm

            sync_norms(self.objective, distributed)
            self.distributed = self.objective.ranks = distributed
            self.network = distributed.prepare(self.objective)

    @property
    def width(self) -> int:
        """The width of the expressed rows."""
        return self.objective.width if self.express == "embeddings" else self.objective.backbone.width

    def __call__(
        self,
        images: Tensor,
        parameters: tuple[ViewParameters, ViewParameters],
        joint: bool,
        clusters: Tensor | None = None,
        others: Tensor | None = None,
    ) -> Losses:
        """Compute the losses of images ``(B, C, H, W)``, seen in two views.

        Parameters
        ----------
        images : Tensor of shape (B, C, H, W)
            uint8, on the device: a batch, or this process's share of it.
        parameters : tuple of ViewParameters
            The random parameters of both views.
        joint : bool
            Whether this step belongs to the joint phase.
        clusters : Tensor, optional
            The clusters of the whole batch's images in the partition, which are pushed apart.
        others : Tensor, optional
            The images of the second views, if these are not the same.
        """
        seen = (images, images if others is None else others)
        view_a, view_b = (
            apply_view(shown, drawn, self.views) for shown, drawn in zip(seen, parameters, strict=True)
        )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            views = _checked(self.network(view_a, view_b), self.objective)
        plain, dictionary = self._expressed(views)
        if len(plain) != self.distributed.count * len(images):
            few = "forward returned rows of its own process only"
            refuse(self.objective, Kind.OBJECTIVE, f"{few}; it must gather them (see ebsc_core.Objective)")
        if not joint or self.model is None:
            figures = torch.stack([views.loss.detach(), views.loss.new_zeros(())])
            return Losses(self._scattered(views, clusters), figures, plain)
        own = torch.arange(len(plain), device=self.device)
        whitening = Whitening(dictionary) if self.whiten else nn.Identity()
        rows, dictionary = whitening(plain), whitening(dictionary)
        stopped, stopped_dictionary = rows.detach(), dictionary.detach()
        expression = expression_of(self.model, stopped, stopped_dictionary, own)
        total = views.loss + loss_of(self.model, stopped, expression)
        if self.joint.weight:
            with _frozen(self.model):
                reconstruction = expression_of(self.model, rows, dictionary, own).reconstruction
            error = _squared_error(rows, reconstruction)
            total = total + self.joint.weight * self._balance(views.loss, error) * error
        else:  # no gradient goes through the coefficients: the expression that is there gives the figure
            error = _squared_error(stopped, expression.reconstruction)
        return Losses(total, torch.stack([views.loss, error]).detach(), plain)

    def _scattered(self, views: Views, clusters: Tensor | None) -> Tensor:
        """Return the objective's loss and, with clusters, that of their prototypes."""
        if clusters is None or not self.joint.weight:
            return views.loss
        assert self.n_clusters is not None
        scattering = prototype_scattering(*views.embeddings, clusters, self.n_clusters)
        return views.loss + self.joint.weight * scattering

    def _balance(self, loss: Tensor, pull: Tensor) -> Tensor:
        """Compute the ratio of the gradients' lengths, objective to pull, at the backbone's last weights.

        Losses have scales from 1 (SimSiam) to 100 (Barlow Twins), and the pull becomes weaker as it
        succeeds. Relative to the objective's gradient, one weight has the same meaning for all objectives
        and at all times. (Esser et al., arXiv:2012.09841, eq. 7, balance two losses this way.)
        """
        weights = [p for p in self.objective.backbone.parameters() if p.requires_grad and p.ndim > 1][-1:]
        gradients = [torch.autograd.grad(part, weights, retain_graph=True)[0] for part in (loss, pull)]
        self.distributed.mean_(gradients)
        lengths = [gradient.float().norm() for gradient in gradients]
        return lengths[0] / lengths[1].clamp_min(torch.finfo(torch.float32).tiny)

    def _expressed(self, views: Views) -> tuple[Tensor, Tensor]:
        a, b = views.embeddings if self.express == "embeddings" else views.features
        return F.normalize(a.float(), dim=1), F.normalize(b.float(), dim=1)


def _checked(views: Any, objective: Objective) -> Views:
    """Return the views of an objective, of which the loss can be minimised.

    Raises
    ------
    ComponentError
        If it has returned something else.
    """
    if not isinstance(views, Views):
        wrong = f"forward returned a {type(views).__name__}, not ebsc_core.Views"
        refuse(objective, Kind.OBJECTIVE, wrong)
    require_loss(views.loss, objective, Kind.OBJECTIVE)
    return views


def _squared_error(rows: Tensor, reconstruction: Tensor) -> Tensor:
    return (rows - reconstruction).square().sum(dim=1).mean()


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Freeze the model's parameters inside the block. Gradients still flow through it to its inputs."""
    learned = [p for p in model.parameters() if p.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)

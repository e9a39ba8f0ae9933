"""One step of the joint training: from a batch and the parameters of its views to the losses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ebsc_core.config.schema import JointChoice
from ebsc_core.data.features.whitening import Whitening
from ebsc_core.data.views.apply import apply_view
from ebsc_core.data.views.options import ViewOptions
from ebsc_core.data.views.parameters import ViewParameters
from ebsc_core.plugins.interfaces import Objective, TrainableCoefficientModel, Views
from ebsc_core.training.prototypes import prototype_scattering
from ebsc_core.utils.distributed import SINGLE_PROCESS, DistributedContext
from ebsc_core.utils.errors import TrainingError


@dataclass(frozen=True)
class Losses:
    """What a step comes to."""

    total: Tensor
    """Scalar, to be minimised."""
    figures: Tensor
    """``(2,)``, stopped: the objective's own loss, and the mean squared error of the rows expressed by the
    other view's rows (0 in the warm-up)."""
    rows: Tensor
    """``(B, D)`` or ``(B, E)``: the rows of view a that are expressed, of unit length, not whitened."""


@dataclass
class JointStep:
    """Losses of an objective and, in the joint phase, of a coefficient model with it.

    In the joint phase each row of view a is expressed by the rows of view b, its own image excluded, and by
    ``joint.memory`` rows that earlier batches of the epoch left behind (in one epoch no image comes twice,
    so none can be expressed by an earlier view of itself). Both are whitened by that dictionary, taken as
    given, if ``whiten`` says so. The coefficient model learns from its own loss on stopped rows. The
    backbone feels the reconstruction error (or the objective's ``agreement`` with the reconstruction)
    through the coefficients as well as through the dictionary, with a gradient ``joint.weight`` times as
    long as the objective's. Keeping the two apart lets the model learn at full speed however gently it may
    pull on the backbone, which collapses when pulled too hard. In the form ``prototypes`` the backbone feels
    the model through a partition alone: the clusters of its graph over all images are pushed apart.

    Nothing here reads a value on the host, so that a GPU is never waited for.
    """

    objective: Objective
    model: TrainableCoefficientModel | None
    device: torch.device
    views: ViewOptions
    joint: JointChoice
    whiten: bool
    """Whether rows are whitened before they express one another in the joint phase."""
    express: str
    bf16: bool = False
    n_clusters: int | None = None
    """Of the partition whose clusters the form ``prototypes`` pushes apart."""

    def __post_init__(self) -> None:
        self.distributed = SINGLE_PROCESS
        self.network: nn.Module = self.objective
        self.forget()

    def join(self, distributed: DistributedContext) -> None:
        """From now on train together with other processes: images that come are a share of the batch.

        What becomes of them is the whole batch's, and the same in each process.

        Raises
        ------
        PartError
            If the network has layers that cannot be computed over several processes.
        """
        if distributed.count > 1:
            from ebsc_core.training.sync_batch_norm import sync_norms  # which asks for timm

            sync_norms(self.objective, distributed)
            self.distributed = self.objective.ranks = distributed
            self.network = distributed.prepare(self.objective)

    @property
    def width(self) -> int:
        """Of the expressed rows."""
        return self.objective.width if self.express == "embeddings" else self.objective.backbone.width

    def forget(self) -> None:
        """Drop the rows that earlier batches left behind, as a new epoch begins."""
        self.memory = torch.empty(0, self.width, device=self.device)

    def __call__(
        self,
        images: Tensor,
        parameters: tuple[ViewParameters, ViewParameters],
        joint: bool,
        clusters: Tensor | None = None,
    ) -> Losses:
        """Losses of images ``(B, C, H, W)`` uint8 on the device, or a share of them, seen in two views.

        ``clusters`` are those of the whole batch's images in the partition, for the form ``prototypes``.
        """
        view_a, view_b = (apply_view(images, drawn, self.views) for drawn in parameters)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            views = self.network(view_a, view_b)
        plain, dictionary = self._expressed(views)
        if len(plain) != self.distributed.count * len(images):
            raise TrainingError(
                f"{type(self.objective).__name__} returns rows of its own process only: "
                "its forward must gather them (see ebsc_core.Objective)"
            )
        if not joint or self.model is None:
            figures = torch.stack([views.loss.detach(), views.loss.new_zeros(())])
            return Losses(views.loss, figures, plain)
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
        total = views.loss + model_loss
        if self.joint.weight and self.joint.form == "prototypes":
            assert clusters is not None
            assert self.n_clusters is not None
            a, b = views.embeddings
            apart = prototype_scattering(a, b, clusters, self.n_clusters)
            total = total + self.joint.weight * apart
        elif self.joint.weight:
            agrees = self.joint.form == "agreement"
            pull = self.objective.agreement(reconstruction, rows) if agrees else error
            total = total + self.joint.weight * self._balance(views.loss, pull) * pull
        return Losses(total, torch.stack([views.loss, error]).detach(), plain)

    def _balance(self, loss: Tensor, pull: Tensor) -> Tensor:
        """How many times longer the objective's gradient is than the pull's, at the backbone's last weights.

        Losses come on scales from 1 (SimSiam) to 100 (Barlow Twins), and the pull fades as it succeeds; as a
        share of the objective's gradient, one weight means the same for all of them, all the time. (Esser et
        al., arXiv:2012.09841, eq. 7, balance two losses so.)
        """
        weights = [p for p in self.objective.backbone.parameters() if p.requires_grad and p.ndim > 1][-1:]
        gradients = [torch.autograd.grad(part, weights, retain_graph=True)[0] for part in (loss, pull)]
        self.distributed.mean_(gradients)
        lengths = [gradient.float().norm() for gradient in gradients]
        return lengths[0] / lengths[1].clamp_min(torch.finfo(torch.float32).tiny)

    def _expressed(self, views: Views) -> tuple[Tensor, Tensor]:
        a, b = views.embeddings if self.express == "embeddings" else views.features
        return F.normalize(a.float(), dim=1), F.normalize(b.float(), dim=1)


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

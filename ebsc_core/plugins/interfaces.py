"""What each kind of part must do: the contracts, with shapes and units.

Throughout, ``B`` is a batch, ``N`` the number of images, ``D`` the width of the backbone's
features, ``E`` that of the objective's embeddings, ``K`` the number of clusters. The *expressed*
rows are features or embeddings (the run decides), scaled to unit length by the framework before a
coefficient model or clusterer sees them.

How the framework builds a part (every factory takes its options first):

=================  ==============================================================================
kind               call
=================  ==============================================================================
data set           ``factory(options, context: DataContext) -> ImageSource``
backbone           ``factory(options, info: ImageInfo) -> Backbone``
objective          ``factory(options, backbone: Backbone) -> Objective``
coefficient model  ``factory(options, width: int) -> CoefficientModel``
clusterer          ``factory(options, n_clusters: int, seed: int) -> Clusterer``
observer           ``factory(options)`` -> anything with hooks of ``ebsc_core.plugins.hookspecs.RunHooks``
=================  ==============================================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ebsc_core.config.options import Options
from ebsc_core.utils.distributed import SINGLE_PROCESS, DistributedContext


@dataclass(frozen=True)
class ImageInfo:
    """What a backbone needs to know of the images it will see."""

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    """Mean per channel, of values in [0, 1]."""
    std: tuple[float, ...]
    """Standard deviation per channel, of values in [0, 1]."""


@dataclass(frozen=True)
class DataContext:
    """How the run wants its data read."""

    root: Path
    """Where named data sets are kept or downloaded to."""
    skip_bad_images: bool = False
    """Leave unreadable images out instead of stopping at the first."""
    limit: int | None = None
    """Take only a seeded sample of this many images."""
    seed: int = 0
    memory: int | None = None
    """Bytes that images may take; None for any number. What takes more is streamed or refused."""
    workers: int | None = None
    """Processes that read images which do not fit in memory; by default as many as are of use here."""
    warn: Callable[[str], None] = lambda message: None
    """Called with one line for the user, for instance on images left out."""


class Backbone(nn.Module, ABC):
    """Maps images to features.

    ``forward`` takes ``(B, C, H, W)`` floats in [0, 1] (it does its own normalisation) and returns
    ``(B, D)`` features.
    """

    width: int
    """``D``, the number of features."""

    def describe(self) -> str:
        """One line for the run's announcement, e.g. which stem was chosen."""
        return type(self).__name__

    def fit(self, images: Tensor) -> None:
        """Told the images ``(N, C, H, W)`` uint8 once, before anything trains: for what no gradient learns.

        A principal subspace, for instance. What is learned goes into buffers whose shapes were known from the
        start, so that it is saved and found again like any weight. Most backbones have nothing to fit.

        Raises
        ------
        DataError
            If these images do not suffice.
        """

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Views:
    """What an objective returns for two views of the same ``B`` images."""

    loss: Tensor
    """Scalar."""
    features: tuple[Tensor, Tensor]
    """The backbone's features of each view, ``(B, D)``, not normalised."""
    embeddings: tuple[Tensor, Tensor]
    """The objective's embeddings of each view, ``(B, E)``, unit length."""


class ProjectorOptions(Options):
    """Options of the projection head most objectives share (Chen et al., arXiv:2002.05709)."""

    hidden: int = 512
    """Width of the projector's hidden layer."""
    width: int = 128
    """Width E of the embeddings."""


def projector(inputs: int, hidden: int, outputs: int, layers: int = 2) -> nn.Sequential:
    """Linear, batch norm, ReLU, …, linear: ``layers`` linear maps, two being the head of SimCLR and BYOL."""
    widths = [inputs, *[hidden] * (layers - 1)]
    blocks: list[nn.Module] = []
    for before, after in pairwise(widths):
        blocks += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*blocks, nn.Linear(widths[-1], outputs))


class Objective(nn.Module, ABC):
    """A self-supervised objective: two views of a batch in, a loss and embeddings out.

    A subclass usually writes :meth:`loss` alone. The backbone is a submodule, so that
    ``objective.parameters()`` is everything that trains.

    Where several processes train, each calls :meth:`forward` on its share of the batch, which gathers what
    the network made of it: :meth:`loss` and whoever asked are given the whole batch, in every process. Who
    overrides :meth:`forward` gathers likewise, by ``self.ranks.gather_views``, before rows are compared.
    """

    Options: ClassVar[type[Options]] = ProjectorOptions
    compares: ClassVar[Literal["embeddings", "projections"]] = "embeddings"
    """What :meth:`loss` is given: unit-length embeddings, or the projector's output as it is."""
    projector_layers: ClassVar[int] = 2
    """Linear maps of the projector."""
    ranks: DistributedContext = SINGLE_PROCESS
    """The processes that train together; set by the trainer."""

    def __init__(self, options: Any, backbone: Backbone) -> None:
        super().__init__()
        self.options = options
        self.backbone = backbone
        self.projector = projector(backbone.width, options.hidden, options.width, self.projector_layers)

    @property
    def width(self) -> int:
        """``E``, the width of the embeddings."""
        return int(self.options.width)

    def embed(self, features: Tensor) -> Tensor:
        """Unit-length float32 embeddings ``(B, E)`` of features ``(B, D)``."""
        return F.normalize(self.projector(features).float(), dim=1)

    def forward(self, view_a: Tensor, view_b: Tensor) -> Views:
        """Loss, features and embeddings of two views, each ``(B, C, H, W)`` in [0, 1].

        Given a share of the batch, it returns what the whole batch came to.
        """
        features = self.backbone(torch.cat([view_a, view_b]))
        projections = self.projector(features).float()
        features, projections = map(self.ranks.gather_views, (features, projections))
        embeddings = F.normalize(projections, dim=1)
        fa, fb = features.chunk(2)
        za, zb = embeddings.chunk(2)
        a, b = (embeddings if self.compares == "embeddings" else projections).chunk(2)
        # Losses are computed in float32: log-sum-exp and norms lose too much in bfloat16.
        with torch.autocast(za.device.type, enabled=False):
            return Views(self.loss(a, b), (fa, fb), (za, zb))

    @abstractmethod
    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        """Scalar loss of what :attr:`compares` says, ``(B, E)`` of each view; row i matches row i."""

    def agreement(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """Score a self-expressive reconstruction ``(B, E)`` of ``target`` as one more view."""
        return self.loss(F.normalize(reconstruction, dim=1), target)

    def before_training(self, total_steps: int) -> None:
        """Told once how many optimiser steps are to come."""

    def resume(self, steps_done: int) -> None:
        """Told then, where training goes on from what was kept, how many are done; weights are loaded."""

    def after_step(self) -> None:
        """Called after every optimiser step, e.g. to move a momentum teacher."""


@dataclass(frozen=True)
class Coefficients:
    """Sparse self-expressive coefficients: ``top_k`` dictionary rows for each query."""

    indices: Tensor
    """``(B, k)`` int64, positions in the dictionary; a query never uses itself."""
    values: Tensor
    """``(B, k)`` float32, signed or not; 0 where fewer than k rows are used."""


class CoefficientModel(ABC):
    """Expresses each query by few rows of a dictionary.

    Rows are of unit length. ``own`` gives, for each query, its own position in the dictionary, or
    -1 where it is not there; that entry is never used. Each row's coefficients depend on its query and the
    dictionary only, not on the other queries: the framework splits queries into blocks as memory allows.

    When all queries are done it may have ``warnings_`` (a list of sentences for the user).

    One that only looks at inner products is best an :class:`ebsc_core.InnerProductModel`, which the framework
    searches for it.
    """

    def encode(self, dictionary: Tensor) -> Any:
        """Whatever of the dictionary ``(N, D)`` is worth computing once for all queries."""
        return dictionary

    @abstractmethod
    def coefficients(self, queries: Tensor, encoded: Any, top_k: int, own: Tensor) -> Coefficients:
        """The ``top_k`` largest coefficients of queries ``(B, D)`` over an encoded dictionary."""


@dataclass(frozen=True)
class Expression:
    """How a trainable model expresses a batch, with gradients."""

    reconstruction: Tensor
    """``(B, D)``, the combination of dictionary rows."""
    penalty: Tensor
    """Scalar regulariser of the coefficients."""


class TrainableCoefficientModel(CoefficientModel, nn.Module):
    """A coefficient model with parameters, trained on mini-batches; it can join the joint phase."""

    def refinement(self) -> dict[str, Any]:
        """Entries of :class:`ebsc_core.config.schema.RefineOptions` to change, unless the run says."""
        return {}

    @abstractmethod
    def express(self, queries: Tensor, dictionary: Tensor, own: Tensor) -> Expression:
        """Reconstruct queries ``(B, D)`` from a dictionary ``(M, D)``, differentiably in both."""

    @abstractmethod
    def loss(self, queries: Tensor, expression: Expression) -> Tensor:
        """Scalar self-expression loss of what :meth:`express` returned for these queries."""


class Clusterer(ABC):
    """Turns an affinity or features into labels, by scikit-learn's convention.

    After :meth:`fit_predict` it may have ``eigenvalues_`` (descending, of the normalised affinity, for the
    run's diagnostics) and ``warnings_`` (a list of sentences for the user, e.g. on convergence).
    """

    consumes: ClassVar[Literal["affinity", "features"]]
    """What :meth:`fit_predict` is given."""
    streams: ClassVar[bool] = False
    """Whether features are given to it as :class:`ebsc_core.Rows`, which need not fit in
    memory."""
    device: torch.device = torch.device("cpu")
    """Where the run computes, set before :meth:`fit_predict`; of use to whoever can compute there."""

    @abstractmethod
    def fit_predict(self, data: Any) -> np.ndarray:
        """Labels ``(N,)`` int64 from 0; -1 for rows that belong to no cluster (noise).

        Parameters
        ----------
        data : csr_matrix of shape (N, N), or ndarray or Rows of shape (N, D)
            A symmetric non-negative affinity with a zero diagonal, or unit-length rows, as
            :attr:`consumes` and :attr:`streams` say. Not to be modified.
        """

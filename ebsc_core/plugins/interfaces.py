"""Define the contract of each kind of component, with shapes and units.

The letters mean the same throughout this module: ``B`` is the size of a batch, ``N`` the number of images,
``D`` the width of the backbone's features, ``E`` the width of the objective's embeddings, and ``K`` the
number of clusters. A run clusters either features or embeddings. The docstrings below call them *rows*. The
framework scales each row to unit length before it passes it to a coefficient model or a clusterer.

The framework builds a component with one call of its factory. The options always come first:

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
from ebsc_core.plugins.kinds import Kind
from ebsc_core.plugins.refusal import refuse
from ebsc_core.utils.distributed import SINGLE_PROCESS, DistributedContext


@dataclass(frozen=True)
class ImageInfo:
    """Describe the images that a backbone will see."""

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    """The mean of each channel. Values are in [0, 1]."""
    std: tuple[float, ...]
    """The standard deviation of each channel. Values are in [0, 1]."""


@dataclass(frozen=True)
class DataContext:
    """Describe how the run wants its images to be read."""

    root: Path
    """The folder for named data sets, including those that are downloaded."""
    skip_bad_images: bool = False
    """If true, leave out unreadable images. Otherwise stop at the first one."""
    limit: int | None = None
    """If given, read only a seeded sample of this many images."""
    seed: int = 0
    memory: int | None = None
    """The number of bytes that the images may take in memory, or None for no limit. A data set that needs
    more is streamed, or an error says that it cannot be."""
    workers: int | None = None
    """The number of processes that read streamed images. None means as many as help on this machine."""
    warn: Callable[[str], None] = lambda message: None
    """A function that shows one line to the user, for instance about images that are left out."""
    download: bool = True
    """Whether a data set that is missing may be downloaded to ``root``. It may not if the images of a
    finished run are read again, because somebody else may have made that run."""
    side: int | None = None
    """The side, in pixels, at which the backbone wants photos, or None if it has no wish. Photos are read at
    most this large. Data sets whose images have one size keep it."""


class Backbone(nn.Module, ABC):
    """Map images to features.

    ``forward`` takes ``(B, C, H, W)`` floats in [0, 1] and returns ``(B, D)`` features. It normalises the
    images itself.
    """

    width: int
    """The number of features, ``D``."""
    pretrained: bool = False
    """Whether it has started from weights that were trained elsewhere. Stored features then depend on the
    content of these weights."""

    def describe(self) -> str:
        """Describe the backbone in one line for the start of a run, for instance which stem it uses."""
        return type(self).__name__

    def fit(self, images: Tensor) -> None:
        """Learn from the images what gradients cannot learn, for instance a principal subspace.

        The run calls this once, before training starts. Store the result in buffers whose shapes are fixed
        in ``__init__``: they are saved and loaded together with the weights. Most backbones have nothing to
        fit.

        Parameters
        ----------
        images : Tensor of shape (N, C, H, W)
            uint8.

        Raises
        ------
        DataError
            If these images are not enough.
        """

    def for_inference(self) -> nn.Module:
        """Return a module that computes the same features without gradients, perhaps faster.

        The run calls this in evaluation mode before it extracts features. The module may share weights with
        the backbone, which stays as it is. By default it is the backbone itself.
        """
        return self

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor: ...


# Types of features that a projector takes; autocast makes the shorter ones.
TRAINED = (torch.float32, torch.bfloat16, torch.float16)


def require_features(found: Any, backbone: Backbone, n_images: int) -> Tensor:
    """Return what a backbone has computed of ``n_images`` images.

    Raises
    ------
    ComponentError
        If these are no features ``(n_images, width)``: all that follows is built for this width.
    """
    if not isinstance(found, Tensor):
        refuse(backbone, Kind.BACKBONE, f"forward returned a {type(found).__name__}, not a tensor")
    width = getattr(backbone, "width", None)
    if width is None:
        refuse(backbone, Kind.BACKBONE, "it has no width; set it to the number of features in __init__")
    if found.shape != (n_images, width):
        wrong = f"of shape {tuple(found.shape)} for {n_images} images and a width of {width}"
        refuse(backbone, Kind.BACKBONE, f"forward returned features {wrong}, not ({n_images}, {width})")
    # A projector has the type of the backbone's weights, which is float64 if somebody wants it so.
    trained = found.dtype in TRAINED or any(found.dtype == weight.dtype for weight in backbone.parameters())
    if not found.is_floating_point() or (found.requires_grad and not trained):
        refuse(backbone, Kind.BACKBONE, f"forward returned features of type {found.dtype}, not torch.float32")
    return found


@dataclass(frozen=True)
class Views:
    """Hold what an objective returns for two views of the same ``B`` images."""

    loss: Tensor
    """Scalar."""
    features: tuple[Tensor, Tensor]
    """The backbone's features of each view, ``(B, D)``. They are not normalised."""
    embeddings: tuple[Tensor, Tensor]
    """The objective's embeddings of each view, ``(B, E)``. Each row has unit length."""


class ProjectorOptions(Options):
    """Set the sizes of the projection head that most objectives share (Chen et al., arXiv:2002.05709)."""

    hidden: int = 512
    """The width of the projector's hidden layer."""
    width: int = 128
    """The width E of the embeddings."""


def projector(inputs: int, hidden: int, outputs: int, layers: int = 2) -> nn.Sequential:
    """Build a projection head: linear maps with batch norm and ReLU between them.

    Two linear maps (``layers=2``) are the head of SimCLR and BYOL.

    Parameters
    ----------
    inputs, hidden, outputs : int
        Widths of the input, of each hidden layer, and of the output.
    layers : int
        Number of linear maps.
    """
    widths = [inputs, *[hidden] * (layers - 1)]
    blocks: list[nn.Module] = []
    for before, after in pairwise(widths):
        blocks += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*blocks, nn.Linear(widths[-1], outputs))


class Objective(nn.Module, ABC):
    """Compute a self-supervised loss and embeddings from two views of a batch.

    A subclass usually implements :meth:`loss` only. The backbone is a submodule, so
    ``objective.parameters()`` contains every parameter that is trained.

    If several processes train together, each process calls :meth:`forward` with its share of the batch.
    :meth:`forward` then gathers the rows of all processes, so :meth:`loss` and the caller get the whole
    batch in every process. A subclass that overrides :meth:`forward` must do the same: call
    ``self.ranks.gather_views`` before it compares rows with each other.
    """

    Options: ClassVar[type[Options]] = ProjectorOptions
    compares: ClassVar[Literal["embeddings", "projections"]] = "embeddings"
    """The input of :meth:`loss`: unit-length embeddings, or the projector's output without
    normalisation."""
    projector_layers: ClassVar[int] = 2
    """The number of linear maps in the projector."""
    ranks: DistributedContext = SINGLE_PROCESS
    """The processes that train together. The trainer sets it."""

    def __init__(self, options: Any, backbone: Backbone) -> None:
        super().__init__()
        self.options = options
        self.backbone = backbone
        if not (hasattr(options, "hidden") and hasattr(options, "width")):
            missing = "its Options have no hidden and width for the projector"
            remedy = "derive them from ebsc_core.ProjectorOptions, or write an __init__"
            refuse(self, Kind.OBJECTIVE, f"{missing}; {remedy}")
        self.projector = projector(backbone.width, options.hidden, options.width, self.projector_layers)

    @property
    def width(self) -> int:
        """The width of the embeddings, ``E``."""
        return int(self.options.width)

    def embed(self, features: Tensor) -> Tensor:
        """Compute unit-length float32 embeddings ``(B, E)`` from features ``(B, D)``."""
        return F.normalize(self.projector(features).float(), dim=1)

    def forward(self, view_a: Tensor, view_b: Tensor) -> Views:
        """Compute the loss, features and embeddings of two views, each ``(B, C, H, W)`` in [0, 1].

        If the views are one process's share of a batch, the result describes the whole batch.
        """
        features = self.backbone(torch.cat([view_a, view_b]))
        features = require_features(features, self.backbone, 2 * len(view_a))
        projections = self.projector(features).float()
        features, projections = map(self.ranks.gather_views, (features, projections))
        embeddings = F.normalize(projections, dim=1)
        fa, fb = features.chunk(2)
        za, zb = embeddings.chunk(2)
        a, b = (embeddings if self.compares == "embeddings" else projections).chunk(2)
        # Compute losses in float32: log-sum-exp and norms lose too much precision in bfloat16.
        with torch.autocast(za.device.type, enabled=False):
            return Views(self.loss(a, b), (fa, fb), (za, zb))

    @abstractmethod
    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the scalar loss of two views.

        Parameters
        ----------
        a, b : Tensor of shape (B, E)
            Rows of the first and second view; :attr:`compares` says which kind. Row i of ``a`` and row i of
            ``b`` come from the same image.
        """

    def before_training(self, total_steps: int) -> None:
        """Prepare for training of ``total_steps`` optimiser steps; called once."""

    def resume(self, steps_done: int) -> None:
        """Prepare to resume after ``steps_done`` steps; called after the weights are loaded."""

    def after_step(self) -> None:
        """Update own state after an optimiser step, e.g. a momentum teacher."""


@dataclass(frozen=True)
class Coefficients:
    """Hold sparse self-expressive coefficients: ``top_k`` dictionary rows for each query."""

    indices: Tensor
    """Positions in the dictionary, ``(B, k)`` int64. A query never uses its own row."""
    values: Tensor
    """The coefficients, ``(B, k)`` float32, of any sign. Entries are 0 if a query uses fewer than k
    rows."""


class CoefficientModel(ABC):
    """Express each query as a combination of a few rows of a dictionary.

    All rows have unit length. ``own`` gives the position of each query in the dictionary, or -1 if the
    query is not in it. A query must not use its own row. The coefficients of a query may depend on that
    query and on the dictionary, but not on the other queries: the framework splits queries into blocks that
    fit in memory.

    After all queries, the model may have an attribute ``warnings_``: a list of sentences for the user.

    If the coefficients depend on inner products only, derive from :class:`ebsc_core.InnerProductModel`
    instead. The framework then does the search.
    """

    described_as: str = ""
    """The model as messages call it, with its supplier. The run sets it when it builds the model."""

    def graph(self) -> dict[str, Any]:
        """Return affinity settings that this model prefers, unless the run sets them.

        The keys are fields of :class:`ebsc_core.config.schema.AffinityOptions`.
        """
        return {}

    def encode(self, dictionary: Tensor) -> Any:
        """Compute once what all queries need from the dictionary ``(N, D)``."""
        return dictionary

    @abstractmethod
    def coefficients(self, queries: Tensor, encoded: Any, top_k: int, own: Tensor) -> Coefficients:
        """Compute the ``top_k`` largest coefficients of queries over a dictionary.

        Parameters
        ----------
        queries : Tensor of shape (B, D)
            Unit-length rows.
        encoded
            What :meth:`encode` returned for the dictionary.
        top_k : int
            Number of coefficients for each query.
        own : Tensor of shape (B,)
            int64, the position of each query in the dictionary, or -1 if it is not there.
        """


@dataclass(frozen=True)
class Expression:
    """Hold how a trainable model expresses a batch, with gradients."""

    reconstruction: Tensor
    """The combination of dictionary rows for each query, ``(B, D)``."""
    penalty: Tensor
    """The regulariser of the coefficients, a scalar."""


class TrainableCoefficientModel(CoefficientModel, nn.Module):
    """Express queries with a model that has parameters and trains on mini-batches.

    Such a model can also take part in a joint phase (``joint.form``), where it shapes the backbone.
    """

    def refinement(self) -> dict[str, Any]:
        """Return refinement settings that this model prefers, unless the run sets them.

        The keys are fields of :class:`ebsc_core.config.schema.RefineOptions`.
        """
        return {}

    @abstractmethod
    def express(self, queries: Tensor, dictionary: Tensor, own: Tensor) -> Expression:
        """Reconstruct queries ``(B, D)`` from a dictionary ``(M, D)``, with gradients in both."""

    @abstractmethod
    def loss(self, queries: Tensor, expression: Expression) -> Tensor:
        """Compute the scalar self-expression loss of ``expression``, which :meth:`express` returned."""


class Clusterer(ABC):
    """Turn an affinity or features into labels, with the interface of scikit-learn.

    After :meth:`fit_predict` the clusterer may have three more attributes: ``eigenvalues_``, the eigenvalues
    of the normalised affinity in descending order, which the run reports; ``embedding_``, the rows of
    weighted eigenvectors ``(N, m)`` in which it found the clusters, which the confidence of the rows uses
    (the run computes them if there are none); and ``warnings_``, a list of sentences for the user, e.g.
    about convergence.
    """

    consumes: ClassVar[Literal["affinity", "features"]]
    """The kind of input that :meth:`fit_predict` gets."""
    streams: ClassVar[bool] = False
    """Whether the features come as :class:`ebsc_core.data.features.rows.Rows`, which need not fit in
    memory. Otherwise they come as one array."""
    finds_number: bool = False
    """Whether it finds the number of clusters itself. The run then asks for none, and the ``n_clusters`` of
    the factory means nothing. If this depends on the options, set it in ``__init__``."""
    device: torch.device = torch.device("cpu")
    """The device of the run, set before :meth:`fit_predict`. A clusterer may compute there or ignore it."""
    described_as: str = ""
    """The clusterer as messages call it, with its supplier. The run sets it when it builds the clusterer."""

    @abstractmethod
    def fit_predict(self, data: Any) -> np.ndarray:
        """Assign a cluster to each row.

        Parameters
        ----------
        data : csr_matrix of shape (N, N), or ndarray or Rows of shape (N, D)
            A symmetric non-negative affinity with a zero diagonal, or unit-length rows; :attr:`consumes`
            and :attr:`streams` say which. Do not modify it.

        Returns
        -------
        ndarray of shape (N,)
            int64, clusters counted from 0, or -1 for rows that belong to no cluster (noise).
        """

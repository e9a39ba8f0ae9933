"""The configuration of a run: one strict model, filled from a TOML file and the command line.

A TOML file has a table per part with its ``name`` and options, tables for training and refinement, and
a few settings of the run itself::

    n_clusters = 10
    seed = 0

    [objective]
    name = "simclr"
    temperature = 0.2

    [train]
    epochs = 100
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from ebsc_core.config.options import Options

PROVENANCE = "provenance"
"""A table of ``run.toml`` that records versions; no setting (see ``ebsc_core.runs.store.compatibility``)."""


def _some_text(text: str) -> str:
    # An empty one is a shell variable that was not set: taking the default then would be no answer.
    if not text or "\0" in text:
        raise ValueError("it is empty or holds a null character")
    return text


def _number_of_clusters(value: Any) -> Any:
    if value is None or value == "auto":
        return value
    try:
        return TypeAdapter(Annotated[int, Field(ge=2)]).validate_python(value)
    except ValidationError:
        raise ValueError("input should be a whole number from 2 on, or 'auto'") from None


# The first names of options of views; files of finished runs have them.
RENAMED_VIEWS = {"jitter": "jitter_prob", "grey": "gray_prob", "blur": "blur_prob"}


def current_view_names(views: Any) -> Any:
    """Give options of views their current names; of two names for one option, the later value wins."""
    if not isinstance(views, Mapping):
        return views
    return {RENAMED_VIEWS.get(name, name): value for name, value in views.items()}


# Not by constraints of pydantic's: those refuse paths that are not UTF-8.
Text = Annotated[str, AfterValidator(_some_text)]


class PartChoice(BaseModel):
    """A part's name and, as further keys, its options (checked against the part's own model)."""

    model_config = ConfigDict(
        extra="allow", use_attribute_docstrings=True, allow_inf_nan=False, ser_json_inf_nan="constants"
    )

    name: Text | None = None
    """Which part; the installed default if not given."""

    @property
    def options(self) -> dict[str, Any]:
        """The part's own options, not yet checked."""
        return dict(self.model_extra or {})


class DataChoice(PartChoice):
    """What to read, and how."""

    root: Text | None = None
    """Where named data sets are kept or downloaded to; by default in the user's cache."""
    limit: int | None = Field(None, gt=0)
    """Take a seeded sample of this many images."""
    skip_bad_images: bool = False
    """Leave unreadable images out (each is named) instead of stopping."""
    workers: int | None = Field(None, ge=0)
    """Processes that read images which are too many for memory; by default one less than there are
    processors, 8 at most. With 0 the run reads them itself."""


class FeaturesChoice(Options):
    """Rows that were computed elsewhere, in place of images."""

    path: Text
    """A file: .npy, .npz, .h5, .parquet or .csv."""
    array: Text | None = None
    """Which array of an .npz or data set of an .h5 they are; by default one called features, or the only
    one."""
    labels: Text | None = None
    """Array or column with the classes, for scoring only; by default one called labels, label or class."""
    ids: Text | None = None
    """Array or column with the rows' names; by default one called ids, id, image, path or filename."""
    images: Text | None = None
    """Data set, folder, .zip or .npz with the images they are of, to be shown: found by the rows' names, or
    in the order of the rows."""


class JointChoice(PartChoice):
    """The coefficient model that trains together with the backbone, and how strongly it pulls.

    It is chosen apart from ``[coefficients]``, so that runs which differ only in the coefficient model
    work on the same features.
    """

    start: float = Field(0.25, ge=0, le=1)
    """Share of the epochs given to the objective alone before the joint phase; 1 for none."""
    form: Literal["reconstruction", "agreement", "prototypes"] = "reconstruction"
    """``reconstruction``: squared error of each row expressed by the other view's rows;
    ``agreement``: the reconstruction counts as one more view under the objective's own loss;
    ``prototypes``: the clusters of the model's own graph are pushed apart (prototype scattering,
    arXiv:2111.11821), which needs their number."""
    renew: int = Field(5, ge=1)
    """With ``prototypes``, the number of epochs after which all images are clustered anew."""
    memory: int = Field(0, ge=0)
    """Rows of the epoch's earlier batches that join the dictionary, as they were and without gradient."""
    whiten: Literal[True, False, "auto"] = "auto"
    """Damp what the rows of a batch's dictionary have in common before they express one another; by default
    as this model prefers, and never with ``agreement``, which compares embeddings."""
    weight: float = Field(0.1, ge=0)
    """Length of that term's gradient at the backbone's last weights, as a share of the objective's own; at 0
    the model trains on stopped gradients. With ``prototypes`` a factor of the term, as published."""


class TrainOptions(Options):
    """Self-supervised training, warm-up and joint phase together."""

    epochs: int = Field(40, ge=0)
    """Passes over the data; 0 uses the backbone as it is."""
    batch_size: int | None = Field(None, ge=2)
    """Images per step; by default 256, below 5,000 images 128 (there, more steps are worth more than larger
    batches), or all of a still smaller data set."""
    lr: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW; rises over the first tenth of the steps, then follows a cosine to 0."""
    weight_decay: float = Field(1e-4, ge=0)
    """Decoupled weight decay."""


class RefineOptions(Options):
    """Training of the coefficient model on the cached features."""

    steps: int = Field(300, ge=0)
    """Optimiser steps."""
    rows: int = Field(1024, ge=2)
    """Rows drawn per step as the dictionary; all if there are no more."""
    queries: int | None = Field(None, ge=1)
    """How many of them are expressed per step; by default all."""
    lr: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW, decaying by a cosine."""
    weight_decay: float = Field(1e-4, ge=0)
    """Decoupled weight decay."""
    clip: float | None = Field(None, gt=0)
    """Largest norm of the gradient; longer ones are shortened to it."""


class AffinityOptions(Options):
    """From coefficients to the graph that is cut."""

    form: Literal["symmetrize", "nearest_neighbors"] = "symmetrize"
    """``symmetrize``: absolute coefficients, each row scaled to sum 1, averaged with their transpose;
    ``nearest_neighbors``: the graph of the rows whose coefficients are most alike, as published for EnSC
    and SENet."""
    n_neighbors: int = Field(3, ge=1)
    """Neighbours of each row in the second form."""


class SearchOptions(Options):
    """How the largest inner products are found, for coefficient models that are a function of those.

    ``cells`` and ``faiss`` look only at the dictionary rows of the cells nearest to a row, so that time grows
    with the number of rows and not with its square. What share of the true largest they found is measured.
    """

    method: Literal["auto", "exact", "cells", "faiss"] = "auto"
    """``exact`` looks at every pair of rows, ``cells`` at those in nearby cells, ``faiss`` has the library of
    that name do so; by default exact up to 70,000 rows, then cells."""
    cell_rows: int = Field(256, ge=8)
    """Rows in a cell, on average."""
    probes: int = Field(8, ge=1)
    """Cells that each row looks into."""


class RunConfig(BaseModel):
    """Everything a run is told."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_assignment=True)

    data: DataChoice = Field(default_factory=DataChoice)
    features: FeaturesChoice | None = None
    """Instead of ``data``: cluster these rows, and train nothing."""
    backbone: PartChoice = Field(default_factory=PartChoice)
    objective: PartChoice = Field(default_factory=PartChoice)
    joint: JointChoice = Field(default_factory=JointChoice)
    coefficients: PartChoice = Field(default_factory=PartChoice)
    clusterer: PartChoice = Field(default_factory=PartChoice)
    observers: dict[Text, dict[str, Any]] = Field(default_factory=dict)
    """What is told of the run: a table of options, which may be empty, per observer by its name."""
    views: Annotated[dict[str, Any], BeforeValidator(current_view_names)] = Field(default_factory=dict)
    """Changes to the view policy chosen from the images (see ``ebsc_core.data.views.options``)."""
    train: TrainOptions = Field(default_factory=TrainOptions)
    refine: RefineOptions = Field(default_factory=RefineOptions)
    search: SearchOptions = Field(default_factory=SearchOptions)
    affinity: AffinityOptions = Field(default_factory=AffinityOptions)

    n_clusters: Annotated[int | Literal["auto"] | None, BeforeValidator(_number_of_clusters)] = None
    """K; by default the number of classes the data set declares. ``auto`` looks for the number whose clusters
    come out again when the graph is perturbed (``ebsc_core.clustering.n_clusters``), and at no class."""
    dictionary_size: int | None = Field(None, ge=2)
    """Cluster a seeded sample of this many rows, and give every other the cluster that most of its
    coefficients over them go to; by default all up to 2,000,000 rows, and 200,000 of more."""
    top_k: int | None = Field(None, ge=1)
    """Coefficients kept per row; by default what the model wants or, from the mean cluster size, 5 to 10."""
    express: Literal["auto", "features", "embeddings"] = "auto"
    """Which rows express one another: the backbone's features or the objective's embeddings; by default
    what the objective prefers."""
    whiten: Literal[True, False, "auto", "choose"] = "auto"
    """Damp what the rows have in common before they express one another; by default as the coefficient model
    prefers (the energy network does, its rivals are as published). ``choose`` tries both ways, each with a
    refinement of its own, and takes the one whose clusters keep more of their affinity within them."""
    protocol: Literal["all", "train-test"] = "all"
    """``all``: fit and score on every image; ``train-test``: hold a share out, fit without it, and score the
    clusters that its coefficients over the fitted images assign it to."""
    test_share: float = Field(0.2, gt=0, lt=1)
    """Share of the images that ``train-test`` holds out, drawn by the seed."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Decides every random number of the run; 32 bits, as scikit-learn takes no more."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto`` takes bf16 on devices with bf16 instructions, but on a CPU fp32 for images under 16 pixels."""
    compile: Literal[True, False, "auto"] = "auto"
    """Compile the backbone for training in one process, but not for a joint phase that pulls on it; ``auto``
    does so on CUDA for trainings of 10,000 steps and more, which win the compiler's time back."""
    out: Text | None = None
    """The run directory; by default a new one under ``runs/``."""
    cache: Text | None = None
    """Where features are kept for reuse; by default in the user's cache. ``none`` turns it off."""


# What says nothing where features are given.
OF_IMAGES = frozenset(
    {"data", "backbone", "objective", "joint", "views", "train", "express", "protocol", "test_share"}
    | {"precision", "compile"}
)
PART_SECTIONS = ("data", "backbone", "objective", "joint", "coefficients", "clusterer")


def trains_jointly(config: RunConfig) -> bool:
    """Whether there is a joint phase, and a coefficient model that trains in it."""
    return config.train.epochs > 0 and config.joint.start < 1

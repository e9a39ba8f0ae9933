"""Define the configuration of a run: one strict model, filled from a TOML file and the command line.

A TOML file has one table per component with its ``name`` and options, tables for training and refinement,
and a few settings of the run itself::

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
    PrivateAttr,
    TypeAdapter,
    ValidationError,
)

from ebsc_core.config.options import Options, changed

PROVENANCE = "provenance"
"""The table of ``run.toml`` that records versions; not a setting.

See ``ebsc_core.runs.store.compatibility``.
"""


def _some_text(text: str) -> str:
    # An empty text usually comes from an unset shell variable. The default would hide that mistake.
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


# The old names of view options. The files of finished runs still contain them.
RENAMED_VIEWS = {"jitter": "jitter_prob", "grey": "gray_prob", "blur": "blur_prob"}


def current_view_names(views: Any) -> Any:
    """Rename view options to their current names; if both names occur, the later value wins."""
    if not isinstance(views, Mapping):
        return views
    return {RENAMED_VIEWS.get(name, name): value for name, value in views.items()}


# pydantic's own constraints refuse paths that are not UTF-8, so a function checks the text.
Text = Annotated[str, AfterValidator(_some_text)]


class ComponentChoice(BaseModel):
    """Hold a component's name and its options; the component's own model checks the options."""

    model_config = ConfigDict(
        extra="allow", use_attribute_docstrings=True, allow_inf_nan=False, ser_json_inf_nan="constants"
    )

    name: Text | None = None
    """The name of the component. By default, the run uses the installed default component."""
    _recorded: bool = PrivateAttr(False)

    @property
    def recorded(self) -> bool:
        """Return whether a run has recorded this section: an option that it lacks did not exist then."""
        return self._recorded

    def mark_recorded(self) -> None:
        """Mark this section as one that a run has recorded."""
        self._recorded = True

    @property
    def options(self) -> dict[str, Any]:
        """Return the component's own options, which are not checked yet."""
        return dict(self.model_extra or {})


class DataChoice(ComponentChoice):
    """Hold the data set to read, and how to read it."""

    root: Text | None = None
    """The folder in which named data sets are stored or to which they are downloaded. By default, it is in
    the user's cache."""
    limit: int | None = Field(None, gt=0)
    """The run uses a seeded sample of this many images. By default, it uses all images."""
    skip_bad_images: bool = False
    """If true, the run leaves out unreadable images and names each of them in a warning. If false, it
    stops."""
    workers: int | None = Field(None, ge=0)
    """The number of processes that read images when the data set does not fit in memory. By default, it is
    one less than the number of processors, from 1 to 8. With 0, the run reads the images in its own
    process."""


class FeaturesChoice(Options):
    """Hold the file of features to cluster in place of images."""

    path: Text
    """The file of features has the type .npy, .npz, .h5, .hdf5, .parquet or .csv."""
    array: Text | None = None
    """The name of the array in an .npz file, or of the data set in an .h5 file, that holds the features. In a
    group, the name is a path such as ``train/features``. By default, it is the one called features,
    embeddings, x or X, or the only one."""
    labels: Text | None = None
    """The name of the array or column with the classes, one per row. They are used for the scores and, by
    default, for the number of clusters. By default, it is the one called labels, label or class beside the
    features."""
    ids: Text | None = None
    """The name of the array or column with the names of the rows. By default, it is the one called ids, id,
    image, path or filename beside the features."""
    images: Text | None = None
    """The data set, folder, .zip, .npz or .npy file with the images of the rows, which the report shows."""
    match: Literal["names", "order"] = "names"
    """With ``names``, each row gets the image of its name: of the same path, or else of the same base name
    if it is unique. Rows without names get the images in their order. With ``order``, all rows do."""


# Settings of the joint phase that only its form ``neighbors`` has a use for.
OF_NEIGHBORS = ("renew", "share", "pixels")


class JointChoice(ComponentChoice):
    """Hold the form of the joint phase, and the coefficient model that takes part in it.

    It is set separately from ``[coefficients]``, so that runs which differ only in the coefficient model
    use the same features.
    """

    form: Literal["none", "reconstruction", "neighbors"] = "none"
    """The loss of the joint phase. With ``none``, there is no joint phase: the objective trains alone.
    ``reconstruction`` is the squared error of each row expressed by the rows of the other view.
    ``neighbors`` expresses all images by one another: it takes the second view of some images from another
    image, which is drawn by the coefficients, and pushes clusters apart (prototype scattering,
    arXiv:2111.11821). Its graph is that of the untrained model; no coefficient model trains."""
    start: float | None = Field(None, ge=0, le=1)
    """The share of the epochs that train with the objective alone, before the joint phase. By default, it
    is a quarter; it is 0 with ``neighbors`` and pixels, which need no warm-up. With 1, there is no joint
    phase."""
    renew: int | None = Field(None, ge=1)
    """With ``neighbors``, all images are expressed and clustered again after this many epochs. By default,
    it is a fifth of the epochs of the joint phase, rounded up."""
    share: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = "auto"
    """With ``neighbors``, the probability that one of the images that express an image is drawn for its
    second view. It is taken if both are in one cluster. ``auto`` is how much the pixels tell: the Jaccard
    distance between the images that express an image with and without pixels. Without pixels, it is 0.5."""
    pixels: bool = True
    """With ``neighbors``, whether all images are expressed by small pictures of themselves, too, beside what
    the network makes of them. What the pictures tell then goes into the network."""
    whiten: Literal[True, False, "auto"] = "auto"
    """If true, the rows of a batch are whitened before they express one another: directions that all rows
    of the dictionary share are damped. ``auto`` is true if the coefficient model prefers any whitening. With
    ``neighbors``, ``auto`` is the form that the model prefers, as in the clustering afterwards."""
    weight: float = Field(0.1, ge=0)
    """With ``reconstruction``, the gradient of the joint loss at the backbone's last weights is scaled to
    this share of the norm of the objective's gradient. With 0, the coefficient model trains and no gradient
    reaches the backbone. With ``neighbors``, the weight is a plain factor of the loss that pushes clusters
    apart, as published."""

    def without_effect(self) -> list[str]:
        """Return the settings that differ from their defaults, but have no effect with this form."""
        if self.form == "none":
            return [*changed(self, JointChoice.model_fields), *self.options]
        return changed(self, OF_NEIGHBORS) if self.form == "reconstruction" else []

    @property
    def warm_up(self) -> float:
        """The share of the epochs that train with the objective alone; 1 if there is no joint phase."""
        if self.form == "none":
            return 1.0
        if self.start is None:
            return 0.0 if self.uses_graph and self.pixels else 0.25
        return self.start

    def first_epoch(self, epochs: int) -> int:
        """Return the epoch in which the joint phase begins, from 0; ``epochs`` if there is none."""
        return round(self.warm_up * epochs)

    @property
    def uses_graph(self) -> bool:
        """Whether the form uses a graph of all images, and trains no coefficient model."""
        return self.form == "neighbors"


OWN_RATES = {"adamw": {"lr": 1e-3, "weight_decay": 1e-4}, "sgd": {"lr": 0.12, "weight_decay": 5e-4}}


class TrainOptions(Options):
    """Hold the options of self-supervised training, with or without a joint phase."""

    epochs: int = Field(40, ge=0)
    """The number of passes over the data. With 0, the run uses the backbone without training it. A backbone
    that starts from trained weights has 0 by default."""
    batch_size: int | None = Field(None, ge=2)
    """The number of images per step. By default, it is 256. Data sets below 5,000 images use 128, because
    more steps help them more than larger batches. Still smaller data sets use all their images."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """The optimiser: AdamW, or stochastic gradient descent with a momentum of 0.9, which most published
    recipes for CIFAR-10 use."""
    lr: float | None = Field(None, gt=0)
    """The peak learning rate. The rate rises over the first tenth of the steps and then follows a cosine to
    0. By default, the peak is 0.001 with AdamW and 0.12 with SGD, which suit batches of 256 images."""
    weight_decay: float | None = Field(None, ge=0)
    """The weight decay: decoupled from the gradient with AdamW, a part of the gradient with SGD. By default,
    it is 0.0001 with AdamW and 0.0005 with SGD."""

    def resolved(self) -> TrainOptions:
        """Return the options with the optimiser's own learning rate and decay where none are given."""
        own = OWN_RATES[self.optimizer]
        given = self.model_dump(include=set(own), exclude_none=True)
        return self.model_copy(update=own | given)


class RefineOptions(Options):
    """Hold the options for training the coefficient model on the cached features."""

    steps: int = Field(300, ge=0)
    """The number of optimiser steps. A model may prefer another number: the energy network prefers 0, and is
    not refined."""
    rows: int = Field(1024, ge=2)
    """The number of rows drawn as the dictionary in each step. If there are fewer rows, each step uses
    all."""
    queries: int | None = Field(None, ge=1)
    """The number of drawn rows that each step expresses. By default, each step expresses all of them."""
    lr: float = Field(1e-3, gt=0)
    """The peak learning rate of AdamW. The rate decays by a cosine."""
    weight_decay: float = Field(1e-4, ge=0)
    """The decoupled weight decay of AdamW."""
    clip: float | None = Field(None, gt=0)
    """The largest norm of the gradient. A longer gradient is scaled down to this norm."""


class AffinityOptions(Options):
    """Hold how the affinity graph is built from the coefficients."""

    form: Literal["symmetrize", "unweighted", "nearest_neighbors"] = "symmetrize"
    """``symmetrize`` takes absolute coefficients, scales each row to sum 1 and averages the matrix with its
    transpose. ``unweighted`` does the same with equal coefficients; those below 1 % of the row's largest are
    left out, so that small separate groups stay separate. The energy network prefers it, other models prefer
    ``symmetrize``. ``nearest_neighbors`` links each row to the rows whose coefficients are most similar to
    its own, as published for EnSC and SENet."""
    n_neighbors: int = Field(3, ge=1)
    """The number of neighbours of each row with ``nearest_neighbors``."""


class SearchOptions(Options):
    """Hold how the largest inner products are searched, for coefficient models that are a function of them.

    ``cells`` and ``faiss`` search only the dictionary rows in the cells nearest to a row. Their time
    therefore grows with the number of rows and not with its square. The run measures which share of the
    true largest inner products they find.
    """

    method: Literal["auto", "exact", "cells", "faiss"] = "auto"
    """``exact`` compares all pairs of rows. ``cells`` compares only rows in nearby cells. ``faiss`` does
    the same with the faiss library. ``auto`` is ``exact`` up to 70,000 rows, and ``cells`` above;
    on a CPU, up to 5·10¹¹ multiplications (22,000 rows of 1,000 columns)."""
    cell_rows: int = Field(256, ge=8)
    """The average number of rows in a cell."""
    probes: int | None = Field(None, ge=1)
    """The number of cells that are searched for each row. By default, it is 8, and 16 if rows have more than
    512 columns."""


class RunConfig(BaseModel):
    """Hold all settings of a run."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_assignment=True)

    data: DataChoice = Field(default_factory=DataChoice)
    features: FeaturesChoice | None = None
    """The run clusters these features instead of ``data``, without training a backbone."""
    backbone: ComponentChoice = Field(default_factory=ComponentChoice)
    objective: ComponentChoice = Field(default_factory=ComponentChoice)
    joint: JointChoice = Field(default_factory=JointChoice)
    coefficients: ComponentChoice = Field(default_factory=ComponentChoice)
    clusterer: ComponentChoice = Field(default_factory=ComponentChoice)
    observers: dict[Text, dict[str, Any]] = Field(default_factory=dict)
    """The observers of the run: one table of options, possibly empty, for each observer's name."""
    views: Annotated[dict[str, Any], BeforeValidator(current_view_names)] = Field(default_factory=dict)
    """Changes to the view policy, which is otherwise derived from the images (see
    ``ebsc_core.data.views.options``)."""
    train: TrainOptions = Field(default_factory=TrainOptions)
    refine: RefineOptions = Field(default_factory=RefineOptions)
    search: SearchOptions = Field(default_factory=SearchOptions)
    affinity: AffinityOptions = Field(default_factory=AffinityOptions)

    n_clusters: Annotated[int | Literal["auto"] | None, BeforeValidator(_number_of_clusters)] = None
    """The number of clusters, K. By default, it is the number of classes that the data set declares.
    ``auto`` chooses the number whose clusters are most stable when the graph is perturbed
    (``ebsc_core.clustering.n_clusters``), and does not use the classes. With a clusterer that finds the
    number itself, it has no effect."""
    dictionary_size: int | None = Field(None, ge=2)
    """The run clusters a seeded sample of this many rows, the dictionary. Every other row gets the cluster
    with the largest share of its coefficients over the dictionary. By default, the run clusters all rows up
    to 2,000,000, and a sample of 200,000 if there are more."""
    top_k: int | None = Field(None, ge=1)
    """The number of coefficients kept per row. By default, the coefficient model decides or, if it has no
    preference, the number is 5 to 10, depending on the mean cluster size."""
    express: Literal["auto", "features", "embeddings"] = "auto"
    """The rows that express one another: the backbone's features or the objective's embeddings. ``auto``
    takes the features, unless the objective prefers its embeddings."""
    whiten: Literal[True, False, "neighbors", "auto"] = "auto"
    """If true, the rows are whitened before they express one another: directions that all rows share are
    damped. ``neighbors`` puts plain and whitened rows side by side and damps the directions in which
    neighbours differ. ``auto`` follows the preference of the coefficient model (``neighbors`` for the energy
    network; the other models follow their publications). If the untrained energy network on another form of
    the rows then keeps far more of the nearest neighbours together, the rows take that form."""
    protocol: Literal["all", "train-test"] = "all"
    """``all`` fits and scores on every image. ``train-test`` holds out a share of the images, fits on the
    others and scores the held-out images. Their coefficients over the fitted images assign them to
    clusters."""
    test_share: float = Field(0.2, gt=0, lt=1)
    """The share of the images that ``train-test`` holds out. The seed decides which images."""
    like: Text | None = None
    """The directory of an earlier run, usually on fewer images. Its clusters, after all decisions,
    keep their numbers and names: they are matched by the images that both runs have. New clusters get new
    numbers."""
    seed: int = Field(0, ge=0, lt=2**32)
    """The seed of every random number in the run. It has at most 32 bits, because scikit-learn takes no
    more."""
    device: str = "auto"
    """The device of the run: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """The precision of training. ``auto`` takes bf16 on devices with bf16 instructions, but fp32 on a CPU
    for images under 16 pixels. Features of a network with trained weights are extracted in bf16 with
    ``bf16``, and with ``auto`` on CUDA; all others in fp32."""
    compile: Literal[True, False, "auto"] = "auto"
    """If true, the backbone is compiled for training in one process, except in a joint phase whose gradient
    reaches it. ``auto`` compiles on CUDA if at least 10,000 steps can run compiled, which repay the
    compilation time."""
    out: Text | None = None
    """The run directory. By default, it is a new directory under ``runs/``."""
    cache: Text | None = None
    """The folder in which features are kept for reuse. By default, it is in the user's cache. With
    ``none``, the run keeps and reuses no features."""


# Settings that have no effect if features are given.
OF_IMAGES = frozenset(
    {"data", "backbone", "objective", "joint", "views", "train", "express", "protocol", "test_share"}
    | {"precision", "compile"}
)
COMPONENT_SECTIONS = ("data", "backbone", "objective", "joint", "coefficients", "clusterer")


def has_joint_phase(config: RunConfig) -> bool:
    """Return whether the run has a joint phase, if it trains at all."""
    return config.joint.first_epoch(config.train.epochs) < config.train.epochs

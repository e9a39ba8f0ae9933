"""Decide every setting that the configuration leaves open, once the data is known.

No choice looks at a label; the number of classes is what the number of clusters is by default.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pydantic import ValidationError

from ebsc_core.clustering.coefficients import auto_top_k
from ebsc_core.config.messages import describe
from ebsc_core.config.schema import JointChoice, RunConfig
from ebsc_core.data.features.forms import WhitenForm
from ebsc_core.data.images.source import ImageSource
from ebsc_core.data.views.options import ViewOptions, default_views
from ebsc_core.plugins.interfaces import Backbone, ImageInfo
from ebsc_core.runs.plan import ImagePlan, Plan
from ebsc_core.utils.errors import ConfigError

# With fewer images than this, more steps are worth more than larger batches.
SMALL_DATA = 5000
# Up to this number, all rows are clustered (their affinity is held in memory); beyond it, a sample.
MAX_CLUSTERED = 2_000_000
DICTIONARY_SIZE = 200_000
# The affinity of nearest neighbors compares the coefficients of all pairs of rows.
MAX_COMPARED = 200_000
# The number for which a clusterer is built where none is known, to check its options.
ANY_NUMBER = 2


@dataclass(frozen=True)
class Preferences:
    """Hold what the chosen components prefer; the run may say otherwise."""

    rows: str = "features"
    """Which rows the objective would have express one another."""
    top_k: int | None = None
    """How many coefficients a row the coefficient model would keep, if it has a wish."""
    whiten: WhitenForm = False
    """Whether and how the coefficient model would have its rows whitened."""
    joint_whiten: WhitenForm = False
    """The same of the model of the joint phase."""
    finds_number: bool = False
    """Whether the clusterer finds the number of clusters itself."""

    @classmethod
    def of(cls, plan: Plan) -> Preferences:
        """Read the preferences from the plan's components and their records."""
        coefficients = plan.coefficients.component.spec
        # Options may decide whether it finds the number, so one is built, for any number.
        clusterer = plan.clusterer.build(ANY_NUMBER, plan.config.seed)
        preferences = cls(
            top_k=coefficients.top_k,
            whiten=coefficients.whiten or False,
            finds_number=bool(getattr(clusterer, "finds_number", False)),
        )
        if not isinstance(plan, ImagePlan):
            return preferences
        return replace(
            preferences,
            rows=plan.objective.component.spec.express or "features",
            joint_whiten=(plan.joint and plan.joint.component.spec.whiten) or False,
        )


@dataclass(frozen=True, kw_only=True)
class ResolvedClusteringSettings:
    """Hold the resolved settings of the clustering stage."""

    n_clusters: int | None
    """None if the number is found later, in the graph or by the clusterer itself."""
    dictionary_size: int | None
    """Number of rows that are clustered, fewer than all; None for all."""
    top_k: int
    whiten: WhitenForm
    """Whether and how the rows are whitened first, unless another form proves better."""
    finds_number: bool = False
    """Whether the clusterer finds the number of clusters itself."""


@dataclass(frozen=True, kw_only=True)
class ResolvedSettings(ResolvedClusteringSettings):
    """Hold the resolved settings of a run on images."""

    trains: bool
    """Whether there is anything to train."""
    batch_size: int
    views: ViewOptions
    express: str
    """``features`` or ``embeddings``: the rows that express one another."""
    joint_whiten: WhitenForm
    """Whether and how the rows are whitened in the joint phase."""


@dataclass(frozen=True)
class InputSummary:
    """Hold what the settings depend on: name, size and classes of the input."""

    name: str
    n: int
    n_classes: int | None
    unit: str = "images"
    """What the ``n`` rows are: ``images`` or ``rows``."""

    @classmethod
    def of(cls, data: ImageSource) -> InputSummary:
        return cls(data.name, len(data), data.n_classes)


def resolve(
    config: RunConfig,
    data: ImageSource,
    info: ImageInfo,
    backbone: Backbone,
    preferences: Preferences,
    processes: int = 1,
) -> ResolvedSettings:
    """Decide what ``config`` leaves open, and check what needs the data to be checked.

    ``processes`` train together, on equal shares of each batch.

    Raises
    ------
    ConfigError
        If a setting does not fit the data.
    """
    trains = config.train.epochs > 0 and any(p.requires_grad for p in backbone.parameters())
    clustering = resolve_clustering(config, InputSummary.of(data), preferences)
    return ResolvedSettings(
        **vars(clustering),
        trains=trains,
        batch_size=_batch_size(config, data, trains, processes),
        views=_views(config, info),
        express=_express(config, trains, preferences.rows),
        joint_whiten=_joint_whiten(config.joint, preferences.joint_whiten),
    )


def resolve_clustering(
    config: RunConfig, inputs: InputSummary, preferences: Preferences
) -> ResolvedClusteringSettings:
    """Decide the open settings of the clustering stage.

    Raises
    ------
    ConfigError
        If a setting does not fit the data.
    """
    dictionary_size = _dictionary_size(config, inputs)
    clustered = dictionary_size or inputs.n
    _check_neighbors(config, clustered, inputs.unit)
    n_clusters = _n_clusters(config, inputs, clustered, preferences.finds_number)
    return ResolvedClusteringSettings(
        n_clusters=n_clusters,
        dictionary_size=dictionary_size,
        top_k=_top_k(config, clustered, n_clusters, preferences.top_k, inputs.unit),
        whiten=preferences.whiten if config.whiten == "auto" else config.whiten,
        finds_number=preferences.finds_number,
    )


def _dictionary_size(config: RunConfig, inputs: InputSummary) -> int | None:
    size = config.dictionary_size
    if size is None:
        return DICTIONARY_SIZE if inputs.n > MAX_CLUSTERED else None
    if size >= inputs.n:
        raise ConfigError(
            f"dictionary_size is {size} but there are {inputs.n} {inputs.unit} to draw it from; choose less "
            "or leave it out"
        )
    return size


def _n_clusters(config: RunConfig, inputs: InputSummary, clustered: int, finds_number: bool) -> int | None:
    if inputs.n < 2:
        raise ConfigError(
            f"{inputs.name}: one {inputs.unit[:-1]} alone has nothing to be compared with; give more"
        )
    if finds_number or config.n_clusters == "auto":
        return None
    n = config.n_clusters or inputs.n_classes
    cure = "say how many clusters with `n_clusters`, or have it found by `n_clusters=auto`"
    if n is None:
        raise ConfigError(f"{inputs.name} has no classes; {cure}")
    if n < 2:
        raise ConfigError(f"{inputs.name} has one class only; {cure}")
    if n > inputs.n:
        raise ConfigError(
            f"`n_clusters` is {n} but {inputs.name} has only {inputs.n} {inputs.unit}; "
            f"ask for fewer clusters or give more {inputs.unit}"
        )
    if n > clustered:
        raise ConfigError(f"dictionary_size is {clustered}, too few rows for {n} clusters; choose more")
    return n


def _batch_size(config: RunConfig, data: ImageSource, trains: bool, processes: int) -> int:
    default = min(128 if len(data) < SMALL_DATA else 256, len(data))
    batch = config.train.batch_size or (default - default % processes)
    if not trains:
        return batch
    if batch > len(data):
        raise ConfigError(
            f"`train.batch_size` is {batch} but {data.name} has only {len(data)} images; lower it"
        )
    if batch % processes:
        less, more = batch - batch % processes, batch - batch % processes + processes
        sizes = " or ".join(str(fits) for fits in (less, more) if 2 <= fits <= len(data))
        cure = f"use {sizes}" if sizes else "start fewer"
        raise ConfigError(
            f"`train.batch_size` is {batch}: {processes} processes cannot share it equally; {cure}"
        )
    if not batch:
        raise ConfigError(f"{processes} processes cannot share {default} images; start fewer")
    return batch


def _views(config: RunConfig, info: ImageInfo) -> ViewOptions:
    policy = default_views(info).model_dump()
    try:
        return ViewOptions.model_validate(policy | config.views)
    except ValidationError as error:
        raise ConfigError(describe(error, ViewOptions, "views")) from None


def _express(config: RunConfig, trains: bool, preferred: str) -> str:
    wanted: str = config.express
    if wanted == "auto":
        wanted = preferred if trains else "features"
    if wanted == "embeddings" and not trains:
        raise ConfigError("express is 'embeddings', which only a trained objective gives; use 'features'")
    return wanted


def _joint_whiten(joint: JointChoice, preferred: WhitenForm) -> WhitenForm:
    if joint.whiten != "auto":
        return joint.whiten
    return preferred if joint.uses_graph else bool(preferred)  # a batch has too few rows for neighbors


def _top_k(
    config: RunConfig, clustered: int, n_clusters: int | None, preferred: int | None, unit: str
) -> int:
    if config.top_k and config.top_k >= clustered:
        raise ConfigError(f"top_k is {config.top_k} but {_others(config, clustered, unit)}")
    wanted = preferred or auto_top_k(clustered, n_clusters)
    return config.top_k or min(wanted, clustered - 1)


def _check_neighbors(config: RunConfig, clustered: int, unit: str) -> None:
    if config.affinity.form != "nearest_neighbors":
        return
    wanted = config.affinity.n_neighbors
    if wanted >= clustered:
        raise ConfigError(f"affinity.n_neighbors is {wanted} but {_others(config, clustered, unit)}")
    if clustered > MAX_COMPARED:
        raise ConfigError(
            f"affinity.form 'nearest_neighbors' compares every two of {clustered} rows; use 'symmetrize' "
            f"or a `dictionary_size` of at most {MAX_COMPARED}"
        )


def _others(config: RunConfig, clustered: int, unit: str) -> str:
    of = "dictionary rows" if config.dictionary_size else unit
    return f"each of {clustered} {of} has only {clustered - 1} others"

"""Say what a run is about to do, in one line for each setting that matters."""

from __future__ import annotations

from ebsc_core.clustering.search import chosen_method
from ebsc_core.config.options import changed
from ebsc_core.config.schema import RefineOptions
from ebsc_core.data.features.forms import ROW_FORMS
from ebsc_core.data.features.source import FeatureSource
from ebsc_core.data.images.source import ImageSource
from ebsc_core.plugins.interfaces import Backbone, ImageInfo, TrainableCoefficientModel
from ebsc_core.runs.context import RunContext
from ebsc_core.runs.plan import ImagePlan, Plan
from ebsc_core.runs.resolve import ResolvedClusteringSettings, ResolvedSettings
from ebsc_core.utils.device import describe_device

# Colour images of at least this side, in pixels, are usually photographs.
PHOTOGRAPH = 64
# How wide the rows will be is not known yet; they are hardly ever wider than this.
WIDEST = 4096


def announce_images(
    context: RunContext,
    plan: ImagePlan,
    data: ImageSource,
    held_out: ImageSource | None,
    info: ImageInfo,
    backbone: Backbone,
    resolved: ResolvedSettings,
) -> None:
    """Announce a run on images."""
    config, say, processes = context.config, context.progress.note, context.distributed.count
    kind = "grey" if info.channels == 1 else "colour"
    images = f"{len(data)} {kind} images of {info.height}x{info.width}{data.where()}"
    say(f"data          {data.name}: {images}{_classes(data.n_classes, data.labels_from)}")
    if held_out:
        say(f"protocol      {len(held_out)} more are held out, assigned afterwards, and scored")
    say(f"backbone      {backbone.describe()}")
    if resolved.trains and _wants_trained_weights(plan, info):
        say(
            "advice        photographs are usually clustered better, and without training, with "
            "`backbone.pretrained`"
        )
    if resolved.trains:
        epochs, joint = config.train.epochs, config.joint
        passes = "1 epoch" if epochs == 1 else f"{epochs} epochs"
        say(f"objective     {plan.objective.name}, {passes}, batches of {resolved.batch_size}")
        if plan.joint:
            first = joint.first_epoch(epochs)
            say(f"joint phase   {plan.joint.name} from epoch {first + 1} on, by {joint.form}")
        elif joint.form != "none":
            say("joint phase   none: `joint.start` leaves no epoch for it")
    elif not config.train.epochs and backbone.pretrained:
        say("objective     none: trained weights stay as they are; `train.epochs=40` trains them on")
    elif config.train.epochs > 0:
        say(f"objective     none: backbone {plan.backbone.name} has nothing to train")
    if not resolved.trains and config.joint.form != "none":
        say("joint phase   none: nothing trains")
    _announce_clustering(context, resolved, resolved.express, len(data), "images")
    if plan.observers:
        say(f"observers     {', '.join(plan.observers)}")
    each = f" in each of {processes} processes" if processes > 1 else ""
    say(f"device        {describe_device(context.device)}{each}, seed {config.seed}")


def _wants_trained_weights(plan: ImagePlan, info: ImageInfo) -> bool:
    """Return whether images like photographs meet a backbone that could have trained weights and has none."""
    like_photographs = info.channels == 3 and min(info.height, info.width) >= PHOTOGRAPH
    could = hasattr(plan.backbone.options, "pretrained")
    return like_photographs and could and not plan.backbone.start.trained


def announce_features(
    context: RunContext, features: FeatureSource, pictures: str, resolved: ResolvedClusteringSettings
) -> None:
    """Announce a run on features."""
    say, (n, width) = context.progress.note, features.shape
    say(f"features      {features.name}: {n} rows of {width}{_classes(features.n_classes)}")
    for doubt in features.doubts():
        context.progress.warn(doubt)
    if features.columns:
        say(f"columns       {features.columns}")
    if pictures:
        say(f"images        {pictures}")
    _announce_clustering(context, resolved, "features", n, "rows")
    say(f"device        {describe_device(context.device)}, seed {context.config.seed}")


def _classes(count: int | None, source: str = "") -> str:
    return f", {count} classes (for scoring only{source and f'; from {source}'})" if count else ""


def _announce_clustering(
    context: RunContext, resolved: ResolvedClusteringSettings, rows: str, n: int, unit: str
) -> None:
    plan, say = context.plan, context.progress.note
    if resolved.dictionary_size:
        say(f"dictionary    {resolved.dictionary_size} of {n} {unit} are clustered; the others join them")
    form = ROW_FORMS[resolved.whiten]
    say(f"coefficients  {plan.coefficients.name} on {form} {rows}, {resolved.top_k} per row")
    say(f"clusterer     {plan.clusterer.name}, {_number(context, resolved)}")
    for reason, settings in _without_effect(plan, resolved, resolved.dictionary_size or n).items():
        if settings:
            say(f"no effect     {', '.join(f'`{setting}`' for setting in settings)}: {reason}")


def _number(context: RunContext, resolved: ResolvedClusteringSettings) -> str:
    """Say how many clusters there will be."""
    if resolved.n_clusters:
        given = "" if context.config.n_clusters else " (the number of classes)"
        return f"{resolved.n_clusters} clusters{given}"
    return "which finds the number itself" if resolved.finds_number else "their number to be found"


def _without_effect(plan: Plan, resolved: ResolvedClusteringSettings, clustered: int) -> dict[str, list[str]]:
    """Return settings that have a value of their own, but no effect in this run, by the reason."""
    config, model = plan.config, plan.coefficients
    found = {}
    if isinstance(plan, ImagePlan):
        found[f"joint.form is {config.joint.form}"] = _dotted("joint", config.joint.without_effect())
        if config.protocol == "all":
            found["protocol is all, so no image is held out"] = changed(config, ["test_share"])
    if resolved.finds_number and config.n_clusters:
        found[f"{plan.clusterer.name} finds the number of clusters itself"] = ["n_clusters"]
    factory = model.component.factory
    if isinstance(factory, type) and not issubclass(factory, TrainableCoefficientModel):
        idle = changed(config.refine, RefineOptions.model_fields)
        found[f"{model.name} has nothing to train"] = _dotted("refine", idle)
    if chosen_method(config.search, clustered, clustered, WIDEST, on_cpu=True) == "exact":
        idle = changed(config.search, ["cell_rows", "probes"])
        found["all pairs of rows are compared"] = _dotted("search", idle)
    return found


def _dotted(section: str, names: list[str]) -> list[str]:
    return [f"{section}.{name}" for name in names]

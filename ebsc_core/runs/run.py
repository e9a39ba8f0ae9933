"""Do what a configuration says: one function for a run on images, one for a run on features."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ebsc_core.config.schema import PROVENANCE, RunConfig
from ebsc_core.data.features.files import read_features
from ebsc_core.data.features.rows import StoredRows, doubt_of_zeros
from ebsc_core.data.features.source import FeatureSource
from ebsc_core.data.features.store import FEATURES, FeatureTable, FeatureWriter
from ebsc_core.data.images.reading import read_images, read_pictures
from ebsc_core.data.images.run_images import RunImages
from ebsc_core.data.images.source import ImageSource
from ebsc_core.data.images.split import split
from ebsc_core.plugins.interfaces import Backbone, ImageInfo
from ebsc_core.plugins.registry import Registry
from ebsc_core.plugins.selection import Choice
from ebsc_core.runs.announce import announce_features, announce_images
from ebsc_core.runs.clustering_stage import ClusteringStage, Joint
from ebsc_core.runs.context import RunContext
from ebsc_core.runs.like import Earlier
from ebsc_core.runs.outcome import Assignment, RunResult, run_figures, write_run
from ebsc_core.runs.plan import ImagePlan, Plan, make_plan
from ebsc_core.runs.resolve import (
    ANY_NUMBER,
    InputSummary,
    Preferences,
    ResolvedSettings,
    resolve,
    resolve_clustering,
)
from ebsc_core.runs.store.directory import check_finished
from ebsc_core.runs.training_stage import TrainingStage
from ebsc_core.training.cache import Trained
from ebsc_core.utils.device import prepare
from ebsc_core.utils.errors import ConfigError
from ebsc_core.utils.hashing import digest
from ebsc_core.utils.launched import process_count
from ebsc_core.utils.progress import Progress
from ebsc_core.utils.system import available_memory


def run(
    config: RunConfig,
    registry: Registry,
    progress: Progress,
    data: ImageSource | None = None,
    resuming: bool = False,
) -> RunResult | None:
    """Do everything ``config`` says and leave a run directory, or finish the one that is there.

    If a launcher has started several processes, all of them train, and the first returns a result.

    Parameters
    ----------
    data : ImageSource, optional
        Images that are in memory already, in place of those that ``config`` names.
    resuming : bool
        Whether ``config.out`` may be an unfinished run.

    Raises
    ------
    EbscError
        For whatever the user can mend; no run directory is left behind then, unless training is kept.
    """
    plan = make_plan(config, registry, reads=data is None)
    if not isinstance(plan, ImagePlan) and process_count() > 1:
        raise ConfigError(f"features are clustered by one process, and {process_count()} run; start only one")
    if config.like:  # before images are read, which may take long
        check_finished(Path(os.path.expanduser(config.like)))
    source, requested = _source(plan, data), _requested(plan, data)
    context = RunContext.open(plan, source, requested, progress, resuming)
    with context.distributed.together():
        for line in plan.warnings():
            context.progress.warn(line)
        with context.observed():
            prepare(context.device)
            if isinstance(plan, ImagePlan):
                result = _run_on_images(context, plan, data)
            else:
                result = _run_on_features(context, plan)
        if result:
            context.observers.run_finished(result.metrics)
        return result


def _run_on_images(context: RunContext, plan: ImagePlan, data: ImageSource | None) -> RunResult | None:
    """Read, train unless the cache has the features, cluster, score, write.

    Of several processes, all but the first take part in training alone.
    """
    config, stage, distributed = context.config, context.stage, context.distributed
    # Whether images are held or streamed must not depend on the memory that another process uses already.
    memory = distributed.broadcast(available_memory())
    with stage("read data"):
        data = data or distributed.in_turn(lambda: _read(context, plan, memory))
    with distributed.synchronized_errors():
        held_out = None
        if config.protocol == "train-test":
            data, held_out = split(data, config.test_share, config.seed)
        info = data.info()
        backbone: Backbone = plan.backbone.build_seeded(config.seed, info).to(context.device)
        resolved = resolve(config, data, info, backbone, Preferences.of(plan), distributed.count)
        if distributed.main:  # a number that the clusterer refuses must cost no training
            plan.clusterer.build(resolved.n_clusters or ANY_NUMBER, config.seed)
        earlier = Earlier(config.like, data.ids, context.progress) if config.like else None
    announce_images(context, plan, data, held_out, info, backbone, resolved)
    training = TrainingStage(
        plan=plan,
        resolved=resolved,
        data=data,
        info=info,
        backbone=backbone,
        device=context.device,
        progress=context.progress,
        distributed=distributed,
        observers=context.observers,
    )
    if not distributed.main:
        training.run_worker()
        return None
    training.mark_cache()
    with context.directory as directory:
        trained = training.run(directory)
        for name, seconds in training.seconds.items():
            stage.note(name, seconds)
        rows = StoredRows(directory.work_folder / FEATURES, resolved.express)
        clustering = ClusteringStage(plan, resolved, context.device, stage, context.progress)
        joint = Joint(training.joint, resolved.joint_whiten) if training.joint else None
        result = clustering.run(rows, joint, earlier.renumber if earlier else None)
        assignments = [Assignment(data, rows, result.labels, result.confidence)]
        if held_out:
            with stage("held-out images"):
                held_out_rows = _extract_held_out(context, held_out, training, resolved)
                found = result.assigner.predict(held_out_rows)
                assignments.append(Assignment(held_out, held_out_rows, *found))
        clustering.pass_on_warnings(result.method.model)
        figures = run_figures(context, result, assignments, earlier) | {
            "processes": distributed.count,
            "features_cost": trained.cost,
            "training": trained.history,
        }
        for other in assignments[1:]:
            other.rows.path.unlink()
        with directory.writing():
            training.write(directory)
        tables = clustering.resolved_tables(result) | _resolved_tables(context, resolved, info, trained)
        write_run(context, result, assignments, tables, figures, earlier)
    return RunResult(directory.path, figures, RunImages(data, held_out))


def _run_on_features(context: RunContext, plan: Plan) -> RunResult:
    """Read rows that were computed elsewhere, cluster, score, write."""
    config, stage, images, pictures = context.config, context.stage, None, ""
    assert config.features
    with stage("read features"):
        features = read_features(config.features)
        if plan.images:  # read now: a mistake in them must cost nothing
            warn = context.progress.warn
            found, pictures = read_pictures(
                plan.images, features.ids, config.features.match, config.seed, warn
            )
            images = RunImages(found)
    n = len(features)
    inputs = InputSummary(features.name, n, features.n_classes, "rows")
    resolved = resolve_clustering(config, inputs, Preferences.of(plan))
    earlier = Earlier(config.like, features.ids, context.progress) if config.like else None
    announce_features(context, features, pictures, resolved)
    with context.directory as directory:
        with stage("read features"), directory.writing():
            zeros = _store(features, directory.work_folder / FEATURES)
        if zeros:
            context.progress.warn(doubt_of_zeros(zeros, n))
        rows = StoredRows(directory.work_folder / FEATURES, "features")
        clustering = ClusteringStage(plan, resolved, context.device, stage, context.progress)
        result = clustering.run(rows, renumber=earlier.renumber if earlier else None)
        clustering.pass_on_warnings(result.method.model)
        assignments = [Assignment(features, rows, result.labels, result.confidence)]
        figures = run_figures(context, result, assignments, earlier) | {
            # Every run says these; here the features were made elsewhere.
            "processes": 1,
            "features_cost": {"seconds": {}, "peak_memory_mib": None},
            "training": [],
        }
        tables = clustering.resolved_tables(result) | {"device": str(context.device)}
        write_run(context, result, assignments, tables, figures, earlier)
    return RunResult(directory.path, figures, images)


def _source(plan: Plan, data: ImageSource | None) -> str:
    """Return the data set or file that is clustered, as it was given."""
    if data:
        return data.name
    if isinstance(plan, ImagePlan):
        assert plan.data
        return plan.data.name
    assert plan.config.features
    return plan.config.features.path


def _requested(plan: Plan, data: ImageSource | None) -> dict[str, Any]:
    """Return the whole configuration as far as it is known before anything is read."""
    tables = plan.tables()
    if isinstance(plan, ImagePlan):
        tables["data"]["name"] = _found_anywhere(plan.data) if plan.data else _source(plan, data)
        if (root := tables["data"]["root"]) is not None:  # it need not exist before something is downloaded
            tables["data"]["root"] = str(Path(os.path.expanduser(root)).absolute())
    else:
        tables["features"]["path"] = _absolute(tables["features"]["path"])
        if plan.images:
            tables["features"]["images"] = _found_anywhere(plan.images)
    if tables["like"] is not None:
        tables["like"] = _absolute(tables["like"])
    return tables


def _found_anywhere(choice: Choice) -> str:
    """Return the name of a data set, or its path as it is found from anywhere.

    A registered data set is what its name means even where a folder happens to have this name.
    """
    return _absolute(choice.name) if choice.component.of_family else choice.name


def _absolute(name: str) -> str:
    """Return a path as it is found from anywhere, and what is no path as it is."""
    path = Path(os.path.expanduser(name))
    return str(path.absolute()) if path.exists() else name


def _read(context: RunContext, plan: ImagePlan, memory: int | None) -> ImageSource:
    assert plan.data
    config = context.config
    return read_images(plan.data, config.data, config.seed, context.progress.warn, memory, side=plan.side)


def _extract_held_out(
    context: RunContext, images: ImageSource, training: TrainingStage, resolved: ResolvedSettings
) -> StoredRows:
    path = context.directory.work_folder / "held-out.h5"
    with context.directory.writing(), closing(images):
        training.extract(images, path)
    return StoredRows(path, resolved.express)


def _store(features: FeatureSource, path: Path) -> int:
    """Write the run's own copy of the features, which later rows are assigned by; count rows of zeros."""
    zeros = 0
    made_from = {"features": features.name, "shape": list(features.shape)}
    with FeatureWriter(path, digest(made_from), made_from, features.ids, features.labels) as writer:
        for block in features.blocks():
            writer.append(FeatureTable(block, None))
            zeros += int((~block.any(dim=1)).sum())
    return zeros


def _resolved_tables(
    context: RunContext, resolved: ResolvedSettings, info: ImageInfo, trained: Trained
) -> dict[str, Any]:
    """Return the resolved settings; ``ebsc run --config run.toml`` repeats the run."""
    single = context.distributed.count == 1
    tables: dict[str, Any] = {
        "views": resolved.views.model_dump(mode="json"),
        "express": resolved.express,
        # With several processes the number of the device is that of a process.
        "device": str(context.device) if single else context.device.type,
        PROVENANCE: {"images": asdict(info)},
    }
    if resolved.trains:
        train = context.config.train.resolved().model_dump(mode="json") | {"batch_size": resolved.batch_size}
        tables |= {"precision": trained.precision, "train": train}
    return tables

"""Doing what a configuration says."""

from __future__ import annotations

from ebsc_core.config.schema import RunConfig
from ebsc_core.data.images.source import ImageSource
from ebsc_core.plugins.registry import Registry
from ebsc_core.runs.feature_pipeline import FeaturePipeline
from ebsc_core.runs.image_pipeline import ImagePipeline
from ebsc_core.runs.pipeline import Pipeline, RunResult
from ebsc_core.runs.plan import ImagePlan, make_plan
from ebsc_core.utils.progress import Progress


def run(
    config: RunConfig,
    registry: Registry,
    progress: Progress,
    data: ImageSource | None = None,
    resuming: bool = False,
) -> RunResult | None:
    """Do everything ``config`` says and leave a run directory, or finish the one that is there.

    Of several processes that a launcher has started, all train and the first returns a result.

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
    pipeline: Pipeline
    if isinstance(plan, ImagePlan):
        pipeline = ImagePipeline(plan, progress, data, resuming)
    else:
        pipeline = FeaturePipeline(plan, progress, resuming)
    with pipeline.distributed.together():
        return pipeline.run()

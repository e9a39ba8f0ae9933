"""A run on features that were computed elsewhere: all of a run but training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ebsc_core.clustering.assign import Assigned
from ebsc_core.config.schema import FeaturesChoice
from ebsc_core.data.features.files import FeatureSource, read_features
from ebsc_core.data.features.rows import StoredRows
from ebsc_core.data.features.store import FEATURES, FeatureTable, FeatureWriter, add_identity
from ebsc_core.data.images.reading import read_pictures
from ebsc_core.data.images.run_images import RunImages
from ebsc_core.runs.clustering_stage import ClusteringStage
from ebsc_core.runs.pipeline import Pipeline, RunResult, Scored, absolute
from ebsc_core.runs.plan import Plan
from ebsc_core.runs.resolve import InputSummary, Preferences, resolve_clustering
from ebsc_core.utils.device import describe_device, prepare
from ebsc_core.utils.hashing import digest
from ebsc_core.utils.progress import Progress


class FeaturePipeline(Pipeline):
    """Clusters the rows of a file."""

    def __init__(self, plan: Plan, progress: Progress, resuming: bool = False) -> None:
        assert plan.config.features
        self.choice: FeaturesChoice = plan.config.features
        super().__init__(plan, progress, resuming)

    def _source(self) -> Path:
        return Path(self.choice.path)

    def _run(self) -> RunResult | None:
        prepare(self.device)
        with self.stage("read features"):
            features = read_features(self.choice)
            if self.plan.images:  # now: what is wrong with them is to cost nothing
                seed, warn = self.config.seed, self.progress.warn
                self.images = RunImages(read_pictures(self.plan.images, features.ids, seed, warn))
        inputs = InputSummary(features.name, len(features), features.n_classes, "rows")
        resolved = resolve_clustering(self.config, inputs, Preferences.of(self.plan))
        n, width = features.shape
        classes = f", {features.n_classes} classes (for scoring only)" if features.n_classes else ""
        self.progress.note(f"features      {features.name}: {n} rows of {width}{classes}")
        self._announce_clustering(resolved, "features", n, "rows")
        self.progress.note(f"device        {describe_device(self.device)}, seed {self.config.seed}")
        with self.directory as directory:
            with self.stage("read features"), directory.writing():
                _store(features, directory.beside / FEATURES)
            rows = StoredRows(directory.beside / FEATURES, "features")
            clustering_stage = ClusteringStage(self.plan, resolved, self.device, self.stage, self.progress)
            result = clustering_stage.run(rows)
            clustering_stage.pass_on_warnings(result.model)
            scored = Scored(features, Assigned(result.clustered.clusters, result.clustered.confidence))
            figures = result.figures | {"protocol": "all"} | self._scores(scored) | self._circumstances(n)
            # As every run says it; these were made elsewhere.
            figures |= {
                "processes": 1,
                "features_cost": {"seconds": {}, "peak_memory_mib": None},
                "training": [],
            }
            return self._write(directory, result, [scored], {"device": str(self.device)}, figures)

    def _requested_tables(self) -> dict[str, Any]:
        tables = self.plan.tables()
        for option in ("path", "images"):
            if tables["features"][option] is not None:
                tables["features"][option] = absolute(tables["features"][option])
        return tables


def _store(features: FeatureSource, path: Path) -> None:
    """The run's own copy, which later rows are assigned by."""
    made_from = {"features": features.name, "shape": list(features.shape)}
    with FeatureWriter(path, digest(made_from), made_from) as writer:
        for block in features.blocks():
            writer.append(FeatureTable(block, None))
    add_identity(path, features.ids, features.labels)

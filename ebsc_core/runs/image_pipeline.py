"""A run on images, its stages in their order.

images → warm-up → joint training → features (HDF5) → refined coefficient model → sparse
coefficients → affinity → clusters → figures.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ebsc_core.clustering.assign import Assigned
from ebsc_core.clustering.cluster import Clustered
from ebsc_core.config.schema import PROVENANCE
from ebsc_core.data.features.rows import StoredRows
from ebsc_core.data.features.store import FEATURES
from ebsc_core.data.images.reading import read_images
from ebsc_core.data.images.run_images import RunImages
from ebsc_core.data.images.source import ImageSource
from ebsc_core.data.images.split import split
from ebsc_core.plugins.interfaces import Backbone, TrainableCoefficientModel
from ebsc_core.runs.clustering_stage import ClusteringStage, Joint
from ebsc_core.runs.pipeline import Pipeline, RunResult, Scored, absolute
from ebsc_core.runs.plan import ImagePlan
from ebsc_core.runs.resolve import Preferences, resolve
from ebsc_core.runs.training_stage import TrainingStage
from ebsc_core.training.cache import Trained
from ebsc_core.utils.device import describe_device, prepare
from ebsc_core.utils.progress import Progress
from ebsc_core.utils.system import available_memory


class ImagePipeline(Pipeline):
    """Trains, unless the cache has the features, and clusters.

    Parameters
    ----------
    data : ImageSource, optional
        The images, if they are in memory already; else those that the plan names are read.
    """

    plan: ImagePlan

    def __init__(
        self,
        plan: ImagePlan,
        progress: Progress,
        data: ImageSource | None = None,
        resuming: bool = False,
    ) -> None:
        self.given = data
        super().__init__(plan, progress, resuming)

    def _source(self) -> Path:
        return Path(self._named())

    def _named(self) -> str:
        """The data set, a path as it was given."""
        if self.given:
            return self.given.name
        assert self.plan.data
        return self.plan.data.name

    def _run(self) -> RunResult | None:
        """All stages; of several processes, all but the first take part in training alone."""
        prepare(self.device)
        # Whether images are held or streamed must not hang on what another process holds already.
        self.memory = self.distributed.broadcast(available_memory())
        with self.stage("read data"):
            self.data = self.given or self.distributed.in_turn(self._read_data)
        with self.distributed.synchronized_errors():
            backbone = self._resolve_settings()
        self._announce(backbone)
        if not self.distributed.main:
            self._training_stage(backbone).run_worker()
            return None
        with self.directory as directory:
            training_stage = self._training_stage(backbone)
            trained = training_stage.run(directory)
            for name, seconds in training_stage.seconds.items():
                self.stage.note(name, seconds)
            rows = StoredRows(directory.beside / FEATURES, self.resolved.express)
            clustering_stage = ClusteringStage(
                self.plan, self.resolved, self.device, self.stage, self.progress
            )
            result = clustering_stage.run(rows, self._joint(training_stage.joint))
            scored = [Scored(self.data, Assigned(result.clustered.clusters, result.clustered.confidence))]
            if self.held_out:
                with self.stage("held-out images"):
                    scored.append(
                        Scored(self.held_out, self._assign(self.held_out, training_stage, result.clustered))
                    )
            clustering_stage.pass_on_warnings(result.model)
            figures = result.figures | {"protocol": self.config.protocol} | self._scores(scored[-1])
            figures |= self._circumstances(len(self.data)) | {
                "processes": self.distributed.count,
                "features_cost": trained.cost,
                "training": trained.history,
            }
            self.images = RunImages(self.data, self.held_out)
            with directory.writing():
                training_stage.write(directory)
            return self._write(directory, result, scored, self._resolved_tables(trained), figures)

    def _read_data(self) -> ImageSource:
        config = self.config
        assert self.plan.data
        return read_images(self.plan.data, config.data, config.seed, self.progress.warn, self.memory)

    def _resolve_settings(self) -> Backbone:
        """Everything that was left open, and the backbone that some of it hangs on."""
        self.held_out: ImageSource | None = None
        if self.config.protocol == "train-test":
            self.data, self.held_out = split(self.data, self.config.test_share, self.config.seed)
        self.info = self.data.info()
        backbone: Backbone = self.plan.backbone.build_seeded(self.config.seed, self.info).to(self.device)
        preferences = Preferences.of(self.plan)
        self.resolved = resolve(
            self.config, self.data, self.info, backbone, preferences, self.distributed.count
        )
        return backbone

    def _training_stage(self, backbone: Backbone) -> TrainingStage:
        return TrainingStage(
            self.plan,
            self.resolved,
            self.data,
            self.info,
            backbone,
            self.device,
            self.progress,
            self.distributed,
            self.observers,
        )

    def _joint(self, model: TrainableCoefficientModel | None) -> Joint | None:
        return Joint(model, self.resolved.joint_whiten) if model else None

    def _announce(self, backbone: Backbone) -> None:
        plan, resolved, say = self.plan, self.resolved, self.progress.note
        kind = "grey" if self.info.channels == 1 else "colour"
        images = f"{len(self.data)} {kind} images of {self.info.height}x{self.info.width}{self.data.where()}"
        classes = f", {self.data.n_classes} classes (for scoring only)" if self.data.n_classes else ""
        say(f"data          {self.data.name}: {images}{classes}")
        if self.held_out:
            say(f"protocol      {len(self.held_out)} more are held out, assigned afterwards, and scored")
        say(f"backbone      {backbone.describe()}")
        if resolved.trains:
            epochs, joint = self.config.train.epochs, self.config.joint
            say(f"objective     {plan.objective.name}, {epochs} epochs, batches of {resolved.batch_size}")
            if plan.joint:
                first = round(joint.start * epochs) + 1
                say(f"joint phase   {plan.joint.name} from epoch {first} on, by {joint.form}")
        elif self.config.train.epochs > 0:
            say(f"objective     none: backbone {plan.backbone.name} has nothing to train")
        self._announce_clustering(resolved, resolved.express, len(self.data), "images")
        processes = f" in each of {self.distributed.count} processes" if self.distributed.count > 1 else ""
        if plan.observers:
            say(f"observers     {', '.join(plan.observers)}")
        say(f"device        {describe_device(self.device)}{processes}, seed {self.config.seed}")

    def _assign(self, images: ImageSource, training_stage: TrainingStage, clustered: Clustered) -> Assigned:
        path = self.directory.beside / "held-out.h5"
        with self.directory.writing(), closing(images):
            training_stage.extract(images, path)
        assigned = clustered.assigner.assign(StoredRows(path, self.resolved.express))
        path.unlink()
        return assigned

    def _requested_tables(self) -> dict[str, Any]:
        tables = self.plan.tables()
        tables["data"]["name"] = self._named() if self.given else absolute(self._named())
        return tables

    def _resolved_tables(self, trained: Trained) -> dict[str, Any]:
        """The resolved settings; ``ebsc run --config run.toml`` repeats the run."""
        resolved = self.resolved
        tables: dict[str, Any] = {
            "views": resolved.views.model_dump(mode="json"),
            "express": resolved.express,
            # Its number is that of the process, of several.
            "device": str(self.device) if self.distributed.count == 1 else self.device.type,
            PROVENANCE: {"images": asdict(self.info)},
        }
        if resolved.trains:
            train = self.config.train.model_dump(mode="json") | {"batch_size": resolved.batch_size}
            tables |= {"precision": trained.precision, "train": train}
        return tables

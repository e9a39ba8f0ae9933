"""Provide the features of a run: reuse them from the cache, or train and extract them now."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from torch import nn

from ebsc_core.config.schema import RunConfig
from ebsc_core.data.features.store import FEATURES, FeatureTable, FeatureWriter, add_identity
from ebsc_core.data.images.in_memory import place_images
from ebsc_core.data.images.source import ImageSource
from ebsc_core.plugins.interfaces import Backbone, ImageInfo, Objective, TrainableCoefficientModel
from ebsc_core.plugins.observers import Observers
from ebsc_core.plugins.selection import Choice
from ebsc_core.runs.made_from import made_from, resumable_from
from ebsc_core.runs.partitioner import Partitioner
from ebsc_core.runs.plan import ImagePlan
from ebsc_core.runs.resolve import ResolvedSettings
from ebsc_core.runs.store.directory import RunDirectory
from ebsc_core.training.cache import Trained, TrainedCache, save_modules
from ebsc_core.training.checkpoint import Checkpoint, CheckpointStore
from ebsc_core.training.extract import feature_blocks, finite, fit_backbone
from ebsc_core.training.kept_blocks import KeptBlocks
from ebsc_core.training.precision import Arithmetic, choose_arithmetic, extracts_in_bf16
from ebsc_core.training.step import JointStep
from ebsc_core.training.trainer import Trainer
from ebsc_core.utils.cached_entries import CHECKPOINT_SUFFIX
from ebsc_core.utils.distributed import SINGLE_PROCESS, DistributedContext
from ebsc_core.utils.errors import DataError, EbscError, TrainingError, is_out_of_memory
from ebsc_core.utils.hashing import digest
from ebsc_core.utils.paths import features_folder
from ebsc_core.utils.progress import Progress
from ebsc_core.utils.system import peak_memory_mib

# The user is warned if training waits for images for more than this share of its time.
WAITED_SHARE = 0.1
# Collapse is judged by this number if the number of clusters is found later.
UNKNOWN_CLUSTERS = 4
# What training depends on, where a message needs other words than the name in the key.
CALLED = {"train": "options of training", "joint": "joint phase"}
# The sections of the components that train.
TRAINING_PARTS = ("backbone", "objective", "joint")


@dataclass
class TrainingStage:
    """Build what trains, and train it unless the cache has the features."""

    plan: ImagePlan
    resolved: ResolvedSettings
    data: ImageSource
    info: ImageInfo
    backbone: Backbone
    device: torch.device
    progress: Progress
    distributed: DistributedContext = SINGLE_PROCESS
    """The processes that train together; after :meth:`run` this process is alone."""
    observers: Observers = field(default_factory=Observers)
    """They hear of every epoch."""

    def __post_init__(self) -> None:
        self.config: RunConfig = self.plan.config
        self.cache = TrainedCache(features_folder(self.config.cache))
        self.bf16 = extracts_in_bf16(self.config.precision, self.device, self.backbone, self.resolved.trains)
        """Whether features are extracted in bf16."""
        self.seconds: dict[str, float] = {}
        self.objective: Objective | None = None
        self.joint: TrainableCoefficientModel | None = None
        """The jointly trained coefficient model, after :meth:`run`; None if the form trains none."""
        self.checkpoints: CheckpointStore | None = None
        self.kept: KeptBlocks | None = None
        """The rows that an interrupted extraction of the images has left, if nothing trains."""
        self.trainer: Trainer | None = None
        if not self.resolved.trains:
            return
        self.objective = self._build(self.plan.objective, self.backbone)
        if self.plan.joint and not self.config.joint.uses_graph:
            embeds = self.resolved.express == "embeddings"
            width = self.objective.width if embeds else self.backbone.width
            self.joint = self._build(self.plan.joint, width)

    def _build(self, choice: Choice, *arguments: Any) -> Any:
        return choice.build_seeded(self.config.seed, *arguments).to(self.device)

    def mark_cache(self) -> None:
        """Mark the cache as one of ebsc, before the run can be resumed: resuming trusts only a marked one."""
        self.cache.mark()

    def run(self, directory: RunDirectory) -> Trained:
        """Take features from the cache, or train, extract and store them; write them to the run directory.

        Of several processes the first does this, while the others :meth:`run_worker`; it is alone afterwards.

        Raises
        ------
        DataError
            If they have read different images.
        """
        self._compare()
        cached = self._reuse(directory)
        if not cached:
            self._prepare_to_resume(directory)
        self.distributed.broadcast(cached is not None)
        with closing(self.data):
            trained = cached or self._train_and_extract(directory)
        self.distributed = self.distributed.close()
        if not cached:
            self._store(trained)
        return trained

    def run_worker(self) -> None:
        """Train and extract with the first process, which alone writes (see :meth:`run`)."""
        self._compare()
        if not self.distributed.broadcast(False):
            with closing(self.data):
                images, _, _ = self._train()
                self.extract(images, None)
        self.distributed = self.distributed.close()

    def _compare(self) -> None:
        if not self.distributed.same(digest(self.made_from)):
            raise DataError("the processes differ in the images or versions they have found; they must not")

    def _reuse(self, directory: RunDirectory) -> Trained | None:
        """Copy the features from the cache to the run directory, if it has them."""
        wanted = self.config.precision if self.resolved.trains else "any"
        with self.cache.in_use(self.made_from):
            trained, problem = self.cache.load(self.made_from, self._modules(), len(self.data), wanted)
            if trained:
                with directory.writing():
                    shutil.copyfile(trained.features, directory.work_folder / FEATURES)
        if trained:
            self.progress.note(f"features reused, no training ({self.cache.folder}/{digest(self.made_from)})")
            for warning in filter(None, [problem, *trained.warnings]):
                self.progress.warn(warning)
        elif problem:
            self.progress.warn(f"{problem}; computing them anew")
        return trained

    def _prepare_to_resume(self, directory: RunDirectory) -> None:
        """Choose where an interruption leaves the work, which may be there; warn if what it left is lost."""
        work, changed = "training" if self.resolved.trains else "extraction", list[str]()
        if self.cache.folder is not None and self.resolved.trains:
            resumable = resumable_from(self.made_from)
            name = digest(resumable | {"batch_size": self.resolved.batch_size})
            file = directory.kept_training(self.cache.folder / f"{name}{CHECKPOINT_SUFFIX}", resumable)
            self.checkpoints = CheckpointStore(file)
            changed = directory.note_training(file, resumable)
        elif self.cache.folder is not None and self.distributed.count == 1:
            self.kept = KeptBlocks(self.cache.folder, digest(self.made_from), self.progress)
            changed = directory.note_training(self.kept.begin, self.made_from)
        if kept := directory.elsewhere:
            command = f"ebsc resume {quote(str(directory.path))} --cache {quote(str(kept.parent))}"
            self.progress.warn(
                f"the {work} starts anew, since its checkpoint is in another cache ({kept}); to go on from "
                f"there, stop this run, then: {command}"
            )
        elif changed:
            what = " and ".join(CALLED.get(name, name) for name in changed)
            self.progress.warn(f"its {what} changed since this run was stopped, so the {work} starts anew")

    def _store(self, trained: Trained) -> None:
        """Store the features in the cache, and delete what was kept to resume."""
        try:
            self.cache.store(self.made_from, self._modules(), trained)
        except OSError as error:  # a full or read-only disk must not cost the training
            self.progress.warn(f"features are not kept for reuse: {error}")
            return
        for kept in (self.checkpoints, self.kept):
            if kept:
                kept.remove()
        if told := self.cache.keep_within_limit(self.made_from):
            self.progress.note(told)

    def extract(self, images: ImageSource, path: Path | None, kept: KeptBlocks | None = None) -> None:
        """Write features and embeddings of images, computed by the trained network.

        Of several processes, which all take part, the one with a path writes. With ``kept``, rows of the same
        images that an interrupted extraction has left are not computed again.

        Raises
        ------
        TrainingError
            If they are not finite.
        """

        def blocks(first: int = 0) -> Iterator[FeatureTable]:
            parts = (self.backbone, self.objective, images, self.device, self.progress, self.distributed)
            extracted = feature_blocks(*parts, bf16=self.bf16, first=first)
            advice = f"; {self.plan.backbone.component.described} makes them without any training"
            if self.resolved.trains:
                advice = "; lower train.lr or use `precision=fp32`"
            return finite(extracted, advice)  # what is kept is sound

        writing = FeatureWriter(path, digest(self.made_from), self.made_from) if path else nullcontext()
        with writing as writer:
            for block in kept.resumed(blocks) if kept else blocks():
                if writer:
                    writer.append(block)

    def write(self, directory: RunDirectory) -> None:
        """Write the weights to a run directory, and the images' names and labels to its features."""
        save_modules(directory.checkpoints, self._modules())
        add_identity(directory.work_folder / FEATURES, self.data.ids, self.data.labels)

    @cached_property
    def made_from(self) -> dict[str, Any]:
        """Everything that the features depend on; see :func:`ebsc_core.runs.made_from.made_from`."""
        return made_from(self.plan, self.resolved, self.data, self.backbone, self.bf16)

    def _modules(self) -> dict[str, nn.Module]:
        """Return the modules to save, by file name."""
        modules = {"backbone": self.backbone, "objective": self.objective, "joint": self.joint}
        return {name: module for name, module in modules.items() if module is not None}

    def _train_and_extract(self, directory: RunDirectory) -> Trained:
        images, arithmetic, history = self._train()
        waited = images.waited
        start = time.perf_counter()
        with (
            directory.writing(),
            self._saving_checkpoint("extracting features, one image at a time", BaseException),
        ):
            self.extract(images, directory.work_folder / FEATURES, self.kept)
        self.seconds["features"] += time.perf_counter() - start + (self.kept.earlier if self.kept else 0.0)
        cost = {
            "seconds": dict(self.seconds),
            "waiting_for_images": round(waited, 2),
            "peak_memory_mib": peak_memory_mib(),
            "arithmetic": arithmetic.reasons if arithmetic else {},
        }
        precision = arithmetic.precision if arithmetic else "none"
        # What else a run warns of, an observer that fails or a full disk, is no matter of the features.
        warnings = list(self.trainer.warnings) if self.trainer else []
        return Trained(directory.work_folder / FEATURES, history, precision, warnings, cost)

    def _train(self) -> tuple[ImageSource, Arithmetic | None, list[dict[str, Any]]]:
        """Train; return the images on the device, the arithmetic, and a record of each epoch."""
        images = place_images(self.data, self.device, self.progress.note)
        arithmetic, history = None, []
        start = time.perf_counter()
        with self.distributed.synchronized_errors():
            if self.distributed.main:
                fit_backbone(self.backbone, self.data, self.progress.note)
        self.distributed.copy_(self.backbone)
        fitting = time.perf_counter() - start
        if self.objective is not None:
            start = time.perf_counter()
            work = f"batches of {self.resolved.batch_size}; lower `train.batch_size`"
            with self._saving_checkpoint(work, Exception):
                with self.distributed.synchronized_errors():
                    kept = self.checkpoints.load() if self.checkpoints else None
                checkpoint = self.distributed.broadcast(kept)
                trainer = self.trainer = self._trainer(self.objective, images)
                arithmetic = self._choose_arithmetic(trainer, checkpoint)
                trainer.step.bf16 = arithmetic.bf16
                trainer.step.join(self.distributed)
                trainer.fit(checkpoint)
            history = [asdict(epoch) for epoch in trainer.history]
            seconds = time.perf_counter() - start
            self.seconds["training"] = trainer.earlier + seconds
            self._tell_of_waiting(trainer, images.waited / seconds)
        self.seconds["features"] = fitting
        return images, arithmetic, history

    def _tell_of_waiting(self, trainer: Trainer, share: float) -> None:
        if share > WAITED_SHARE:
            trainer.warn(
                f"training waited for images {100 * share:.0f} % of its time; more processes (data.workers), "
                "a faster disk or files nearer the size they are used at would help"
            )

    @contextmanager
    def _saving_checkpoint(self, work: str, *costly: type[BaseException]) -> Iterator[None]:
        """Save a checkpoint if the block fails; report lack of memory in one line."""
        try:
            yield
        except EbscError:
            raise
        except costly as error:
            suffix = self.trainer.save_checkpoint() if self.trainer else ""
            if is_out_of_memory(error):
                raise TrainingError(f"out of memory on {self.device} in {work}{suffix}") from error
            raise

    def _trainer(self, objective: Objective, images: ImageSource) -> Trainer:
        objective.to(memory_format=torch.channels_last)
        parts, partitioner = self.plan.suppliers(), None
        if self.plan.joint and self.config.joint.uses_graph:
            partitioner = Partitioner(
                objective, images, self.plan, self.resolved, self.device, self.distributed
            )
        step = JointStep(
            objective=objective,
            model=self.joint,
            device=self.device,
            views=self.resolved.views,
            joint=self.config.joint,
            whiten=bool(self.resolved.joint_whiten),
            express=self.resolved.express,
            n_clusters=self.resolved.n_clusters,
        )
        return Trainer(
            step=step,
            images=images,
            options=self.config.train,
            batch_size=self.resolved.batch_size,
            n_clusters=self.resolved.n_clusters or UNKNOWN_CLUSTERS,
            seed=self.config.seed,
            progress=self.progress,
            checkpoints=self.checkpoints,
            observers=self.observers,
            partition=partitioner,
            parts={section: parts[section] for section in TRAINING_PARTS if section in parts},
        )

    def _choose_arithmetic(self, trainer: Trainer, checkpoint: Checkpoint | None) -> Arithmetic:
        """Choose precision and compilation; of several processes, the first chooses for all."""
        chosen, precision = None, self.config.precision
        if checkpoint and precision == "auto":  # as the training began
            precision = "bf16" if checkpoint[1]["bf16"] else "fp32"
        if self.distributed.main:
            each = trainer.batch_size // self.distributed.count
            chosen = choose_arithmetic(
                trainer.step.objective,
                torch.Size([each, *trainer.images.shape]),
                self.device,
                trainer.compilable_steps if self.distributed.count == 1 else 0,
                precision,
                self.config.compile,
            )
        chosen = self.distributed.broadcast(chosen)
        assert chosen is not None
        self.progress.note(f"precision     {chosen.reasons['precision']}")
        if self.device.type == "cuda" or self.config.compile != "auto":
            self.progress.note(f"compile       {chosen.reasons['compile']}")
        return chosen

"""The features of a run: found in the cache, or trained and extracted now."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ebsc_core.clustering.partition import partition
from ebsc_core.config.schema import RunConfig
from ebsc_core.data.features.store import FEATURES, FeatureWriter, add_identity
from ebsc_core.data.images.in_memory import ImageSet
from ebsc_core.data.images.source import ImageSource
from ebsc_core.plugins.interfaces import Backbone, ImageInfo, Objective, TrainableCoefficientModel
from ebsc_core.plugins.observers import Observers
from ebsc_core.runs.plan import ImagePlan
from ebsc_core.runs.resolve import ResolvedSettings
from ebsc_core.runs.store.directory import RunDirectory
from ebsc_core.training.cache import Trained, TrainedCache, save_modules
from ebsc_core.training.checkpoint import Checkpoint, CheckpointStore, is_out_of_memory
from ebsc_core.training.extract import feature_blocks
from ebsc_core.training.precision import Arithmetic, choose_arithmetic
from ebsc_core.training.step import JointStep
from ebsc_core.training.trainer import Trainer
from ebsc_core.utils.distributed import SINGLE_PROCESS, DistributedContext
from ebsc_core.utils.errors import DataError, EbscError, TrainingError
from ebsc_core.utils.hashing import digest
from ebsc_core.utils.paths import features_folder
from ebsc_core.utils.progress import Progress
from ebsc_core.utils.system import peak_memory_mib

# A run whose training waits for images for more than this part of its time is told so.
WAITED_SHARE = 0.1
# Weights and activations need the rest of a GPU; data sets above this part of it stay on the host.
DEVICE_SHARE = 0.25
# By these is collapse judged where the number is to be found later: a rank below 2 tells none apart.
UNKNOWN_CLUSTERS = 4
# The sections of the parts that train.
TRAINING_PARTS = ("backbone", "objective", "joint")


@dataclass
class TrainingStage:
    """Builds what trains, trains it unless the cache has it, and says what the features depend on."""

    plan: ImagePlan
    resolved: ResolvedSettings
    data: ImageSource
    info: ImageInfo
    backbone: Backbone
    device: torch.device
    progress: Progress
    distributed: DistributedContext = SINGLE_PROCESS
    """The processes that train together, until :meth:`run` has parted from them."""
    observers: Observers = field(default_factory=Observers)
    """Told of every epoch."""

    def __post_init__(self) -> None:
        self.config: RunConfig = self.plan.config
        self.seconds: dict[str, float] = {}
        self.objective: Objective | None = None
        self.joint: TrainableCoefficientModel | None = None
        """The jointly trained coefficient model, after :meth:`run`."""
        self.checkpoints: CheckpointStore | None = None
        self.trainer: Trainer | None = None
        if not self.resolved.trains:
            return
        self.objective = self._build(self.plan.objective, self.backbone)
        if self.plan.joint:
            embeds = self.resolved.express == "embeddings"
            width = self.objective.width if embeds else self.backbone.width
            self.joint = self._build(self.plan.joint, width)

    def _build(self, choice: Any, *arguments: Any) -> Any:
        return choice.build_seeded(self.config.seed, *arguments).to(self.device)

    def run(self, directory: RunDirectory) -> Trained:
        """Features from the cache, or trained and extracted now and put there; in the run directory, too.

        Of several processes the first does this, while the others :meth:`run_worker`; it is alone afterwards.

        Raises
        ------
        DataError
            If they have read different images.
        """
        self._compare()
        cache = TrainedCache(features_folder(self.config.cache))
        cached = self._reuse(cache, directory)
        if cache.folder is not None and self.resolved.trains:
            self.checkpoints = CheckpointStore(
                cache.folder / f"{digest(self._resumable_from)}.training.safetensors"
            )
            directory.training = self.checkpoints.path
        self.distributed.broadcast(cached is not None)
        with closing(self.data):
            trained = cached or self._train_and_extract(directory)
        self.distributed = self.distributed.close()
        if not cached:
            try:
                cache.store(self.made_from, self._modules(), trained)
            except OSError as error:  # a full or read-only disk must not cost the training
                self.progress.warn(f"features are not kept for reuse: {error}")
            else:
                if self.checkpoints:
                    self.checkpoints.remove()
        return trained

    def run_worker(self) -> None:
        """What is left to the other processes of :meth:`run`: to train and to extract, not to write."""
        self._compare()
        if not self.distributed.broadcast(False):
            with closing(self.data):
                images, _, _ = self._train()
                self.extract(images, None)
        self.distributed = self.distributed.close()

    def _compare(self) -> None:
        if not self.distributed.same(digest(self.made_from)):
            raise DataError("the processes differ in the images or versions they have found; they must not")

    def _reuse(self, cache: TrainedCache, directory: RunDirectory) -> Trained | None:
        wanted = self.config.precision if self.resolved.trains else "any"
        trained, problem = cache.load(self.made_from, self._modules(), len(self.data), wanted)
        if trained:
            self.progress.note(f"features reused, no training ({cache.folder}/{digest(self.made_from)})")
            for warning in trained.warnings:
                self.progress.warn(warning)
            with directory.writing():
                shutil.copyfile(trained.features, directory.work_folder / FEATURES)
        elif problem:
            self.progress.warn(f"{problem}; computing them anew")
        return trained

    def extract(self, images: ImageSource, path: Path | None) -> None:
        """Write features and embeddings of images, by what :meth:`run` has trained.

        Of several processes, which all take part, the one with a path writes.

        Raises
        ------
        TrainingError
            If they are not finite.
        """
        blocks = feature_blocks(
            self.backbone, self.objective, images, self.device, self.progress, self.distributed
        )
        writing = FeatureWriter(path, digest(self.made_from), self.made_from) if path else nullcontext()
        with writing as writer:
            for block in blocks:
                if not bool(torch.isfinite(block.features).all()):
                    raise TrainingError(
                        "the backbone's features are not finite; lower train.lr or use `precision=fp32`"
                    )
                if writer:
                    writer.append(block)

    def write(self, directory: RunDirectory) -> None:
        """Weights into a run directory, and the images' names and labels beside its features."""
        save_modules(directory.checkpoints, self._modules())
        add_identity(directory.work_folder / FEATURES, self.data.ids, self.data.labels)

    @cached_property
    def made_from(self) -> dict[str, Any]:
        """What the features depend on: nothing of the coefficient model, clusterer or labels.

        Cached, since it takes a pass over all pixels.
        """
        made_from: dict[str, Any] = {
            "images": self.data.digest(),
            "backbone": self.plan.backbone.record(),
        }
        # What has no weights is the same for every seed.
        if any(True for _ in self.backbone.parameters()):
            made_from["seed"] = self.config.seed
        if self.resolved.trains:
            made_from |= {
                "objective": self.plan.objective.record(),
                "views": self.resolved.views.model_dump(mode="json", by_alias=True),
                "train": self.config.train.model_dump(mode="json"),
            }
            made_from["train"]["batch_size"] = self.resolved.batch_size
        if self.resolved.trains and self.plan.joint:
            made_from["joint"] = {
                "model": self.plan.joint.record(),
                "express": self.resolved.express,
                "whiten": self.resolved.joint_whiten,
                **self.config.joint.model_dump(mode="json", include={"start", "form", "memory", "weight"}),
            }
            if self._partitions:
                made_from["joint"] |= {
                    "renew": self.config.joint.renew,
                    "n_clusters": self.resolved.n_clusters,
                }
        return made_from

    @property
    def _resumable_from(self) -> dict[str, Any]:
        """What training depends on, but for what may change before: the batch size, and versions of parts.

        Whoever goes on after such a change is warned.
        """
        train = {name: value for name, value in self.made_from["train"].items() if name != "batch_size"}
        return _without_versions(self.made_from | {"train": train})

    def _modules(self) -> dict[str, nn.Module]:
        """What is saved, by file name."""
        modules = {"backbone": self.backbone, "objective": self.objective, "joint": self.joint}
        return {name: module for name, module in modules.items() if module is not None}

    def _train_and_extract(self, directory: RunDirectory) -> Trained:
        before = len(self.progress.warnings)
        images, arithmetic, history = self._train()
        waited = images.waited
        start = time.perf_counter()
        with (
            directory.writing(),
            self._saving_checkpoint("extracting features; lower data.size", BaseException),
        ):
            self.extract(images, directory.work_folder / FEATURES)
        self.seconds["features"] += time.perf_counter() - start
        cost = {
            "seconds": dict(self.seconds),
            "waiting_for_images": round(waited, 2),
            "peak_memory_mib": peak_memory_mib(),
            "arithmetic": arithmetic.reasons if arithmetic else {},
        }
        precision = arithmetic.precision if arithmetic else "none"
        return Trained(
            directory.work_folder / FEATURES, history, precision, self.progress.warnings[before:], cost
        )

    def _train(self) -> tuple[ImageSource, Arithmetic | None, list[dict[str, Any]]]:
        """The images on the device; in which arithmetic was trained, and a record of each epoch."""
        images = self._place_images()
        arithmetic, history = None, []
        start = time.perf_counter()
        with self.distributed.synchronized_errors():
            if self.distributed.main and type(self.backbone).fit is not Backbone.fit:
                self.backbone.fit(self.data.to_fit())
        self.distributed.copy_(self.backbone)
        fitting = time.perf_counter() - start
        if self.objective is not None:
            start = time.perf_counter()
            work = f"batches of {self.resolved.batch_size}; lower `train.batch_size`"
            with self._saving_checkpoint(work, Exception, SystemExit):
                checkpoint = self.distributed.broadcast(self._load_checkpoint())
                trainer = self.trainer = self._trainer(self.objective, images)
                arithmetic = self._choose_arithmetic(trainer, checkpoint)
                trainer.step.bf16 = arithmetic.bf16
                trainer.step.join(self.distributed)
                trainer.fit(checkpoint)
            history = [asdict(epoch) for epoch in trainer.history]
            seconds = time.perf_counter() - start
            self.seconds["training"] = trainer.earlier + seconds
            self._tell_of_waiting(images.waited / seconds)
        self.seconds["features"] = fitting
        return images, arithmetic, history

    def _tell_of_waiting(self, share: float) -> None:
        if share > WAITED_SHARE:
            self.progress.warn(
                f"training waited for images {100 * share:.0f} % of its time; more processes (data.workers), "
                "a faster disk or files nearer the size they are used at would help"
            )

    def _load_checkpoint(self) -> Checkpoint | None:
        """What there is to go on from."""
        try:
            return self.checkpoints.load() if self.checkpoints else None
        except DataError as error:
            self.progress.warn(f"training starts afresh: {error}")
            return None

    @contextmanager
    def _saving_checkpoint(self, work: str, *costly: type[BaseException]) -> Iterator[None]:
        """What goes wrong costs no training that was done; lack of memory is one line."""
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
        parts = self.plan.suppliers()
        step = JointStep(
            objective=objective,
            model=self.joint,
            device=self.device,
            views=self.resolved.views,
            joint=self.config.joint,
            whiten=self.resolved.joint_whiten,
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
            partition=(lambda: self._partition(objective, images)) if self._partitions else None,
            parts={section: parts[section] for section in TRAINING_PARTS if section in parts},
        )

    @property
    def _partitions(self) -> bool:
        """Whether training asks for the clusters of all images."""
        return self.joint is not None and self.config.joint.form == "prototypes"

    @torch.no_grad()
    def _partition(self, objective: Objective, images: ImageSource) -> Tensor:
        """The clusters of all images as the network and the joint model have them now, ``(N,)``."""
        assert self.joint is not None
        assert self.resolved.n_clusters is not None
        table = feature_blocks(self.backbone, objective, images, self.device, Progress(), self.distributed)
        rows = torch.cat([block.expressed(self.resolved.express) for block in table])
        clusters = None
        if self.distributed.main:
            clusters = partition(
                rows.to(self.device),
                self.joint,
                self.resolved.n_clusters,
                self.resolved.joint_whiten,
                self.config.seed,
            )
        clusters = self.distributed.broadcast(clusters)
        assert clusters is not None
        return clusters

    def _choose_arithmetic(self, trainer: Trainer, checkpoint: Checkpoint | None) -> Arithmetic:
        """By a trial of this process alone; of several, of the first, for all of them."""
        chosen, precision = None, self.config.precision
        if checkpoint and precision == "auto":  # as it began
            precision = "bf16" if checkpoint[1]["bf16"] else "fp32"
        if self.distributed.main:
            share = torch.arange(trainer.batch_size)[self.distributed.share(trainer.batch_size)]
            (images,) = trainer.images.batches([share], self.device)
            chosen = choose_arithmetic(
                trainer.step.objective,
                images,
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

    def _place_images(self) -> ImageSource:
        """Images in memory on the device as uint8 if they fit comfortably, else where they are."""
        data = self.data
        if not isinstance(data, ImageSet):
            return data
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            if data.images.nbytes > DEVICE_SHARE * free:
                self.progress.note("images stay in host memory: they would crowd the device")
                return data
        return replace(data, images=data.images.to(self.device))


def _without_versions(record: Any) -> Any:
    """Plain values in which parts come ``from`` a distribution of any version."""
    if not isinstance(record, dict):
        return record
    return {
        name: value.rpartition(" ")[0] if name == "from" else _without_versions(value)
        for name, value in record.items()
    }

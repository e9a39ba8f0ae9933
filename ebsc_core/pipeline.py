"""The stages of a run in their order; the only place that sees them all.

images → warm-up → joint training → features (HDF5) → refined coefficient model → sparse
coefficients → affinity → clusters → figures.
"""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from scipy import sparse
from torch import Tensor, nn

from ebsc_core import metrics
from ebsc_core.cache import FEATURES, TRAINING, Trained, TrainedCache, user_cache, write_trained
from ebsc_core.coefficients import affinity, auto_top_k, self_expressive_coefficients
from ebsc_core.config import PROVENANCE, RunConfig, describe
from ebsc_core.data.images import ImageSet
from ebsc_core.data.views import ViewOptions, default_views
from ebsc_core.device import choose_precision, describe_device, prepare, resolve_device
from ebsc_core.eigen import leading_eigenpairs
from ebsc_core.errors import ConfigError, DataError, TrainingError
from ebsc_core.features import add_identity, digest
from ebsc_core.interfaces import (
    Backbone,
    Clusterer,
    CoefficientModel,
    DataContext,
    Objective,
    TrainableCoefficientModel,
)
from ebsc_core.plan import Plan, make_plan
from ebsc_core.progress import Progress
from ebsc_core.registry import Registry
from ebsc_core.runs import RunDirectory, default_path, provenance
from ebsc_core.training.extract import extract
from ebsc_core.training.joint import JointTrainer
from ebsc_core.training.refine import refine

# Weights and images take their share of a GPU; data sets above this part of it stay on the host.
DEVICE_SHARE = 0.25


@dataclass(frozen=True)
class RunResult:
    """What a finished run came to."""

    directory: Path
    metrics: dict[str, Any]


def run(config: RunConfig, registry: Registry, progress: Progress) -> RunResult:
    """Do everything ``config`` says and leave a run directory.

    Raises
    ------
    EbscError
        For whatever the user can mend; nothing is left behind then.
    """
    return Pipeline(config, registry, progress).run()


class Pipeline:
    """One run. Cheap checks come first, so that a mistake costs seconds and not a training."""

    def __init__(self, config: RunConfig, registry: Registry, progress: Progress) -> None:
        self.config, self.progress = config, progress
        self.plan: Plan = make_plan(config, registry)
        self.device = resolve_device(config.device)
        self.seconds: dict[str, float] = {}
        names = [self.plan.data.name, self.plan.backbone.name, self.plan.objective.name]
        names += [self.plan.coefficients.name, self.plan.clusterer.name]
        names[0] = Path(names[0]).stem or "data"
        self.directory = RunDirectory(Path(config.out) if config.out else default_path(names, config.seed))

    def run(self) -> RunResult:
        prepare(self.device)
        with self.stage("read data"):
            self.data = self.read_data()
        self.info = self.data.info()
        self.n_clusters = self.choose_n_clusters()
        self.views = self.choose_views()
        self.backbone: Backbone = self.seeded(self.plan.backbone, self.info).to(self.device)
        self.trains = self.decide_training()
        self.express = self.choose_rows()
        self.check_batch_size()
        self.top_k = self.choose_top_k()
        self.announce()
        with self.directory as directory:
            trained = self.trained_features(directory)
            rows = trained.table.rows(self.express)
            model = self.coefficient_model(rows.shape[1])
            with self.stage("refine coefficients"):
                self.refine(model, rows)
            with self.stage("coefficients"):
                graph = self.affinity(model, rows)
            with self.stage("clusters"):
                clusterer, clusters = self.cluster(graph, rows)
            figures = self.figures(graph, rows, clusterer, clusters, trained)
            self.write(directory, graph, clusters, figures)
        return RunResult(self.directory.path, figures)

    # -- choices ---------------------------------------------------------------------------------

    def read_data(self) -> ImageSet:
        choice = self.config.data
        context = DataContext(
            root=Path(choice.root).expanduser() if choice.root else user_cache() / "data",
            skip_bad_images=choice.skip_bad_images,
            limit=choice.limit,
            seed=self.config.seed,
            warn=self.progress.warn,
        )
        data = self.plan.data.build(context)
        if not isinstance(data, ImageSet):
            raise DataError(f"data set {self.plan.data.name!r} returned no ImageSet")
        return data.sample(choice.limit, self.config.seed)

    def choose_n_clusters(self) -> int:
        n = self.config.n_clusters or self.data.n_classes
        if n is None:
            raise ConfigError(f"{self.data.name} has no classes; say how many clusters with --n-clusters")
        if n < 2:
            raise ConfigError(f"{self.data.name} has one class only; say how many clusters with --n-clusters")
        if n > len(self.data):
            raise ConfigError(
                f"--n-clusters is {n} but {self.data.name} has only {len(self.data)} images; "
                "ask for fewer clusters or give more images"
            )
        return n

    def choose_views(self) -> ViewOptions:
        policy = default_views(self.info).model_dump()
        try:
            return ViewOptions.model_validate(policy | self.config.views)
        except ValidationError as error:
            raise ConfigError(describe(error, ViewOptions, "views")) from None

    def decide_training(self) -> bool:
        if self.config.train.epochs == 0:
            return False
        if not any(p.requires_grad for p in self.backbone.parameters()):
            self.progress.note(f"backbone {self.plan.backbone.name} has nothing to train: no training")
            return False
        return True

    def choose_rows(self) -> str:
        wanted = self.config.express
        if wanted == "embeddings" and not self.trains:
            raise ConfigError("express is 'embeddings', which only a trained objective gives; use 'features'")
        if wanted == "auto":
            wanted = "embeddings" if self.trains else "features"
        if self.trains and self.config.joint.form == "agreement" and wanted == "features":
            raise ConfigError("joint.form 'agreement' compares embeddings; use express = 'embeddings'")
        return wanted

    def check_batch_size(self) -> None:
        batch = self.config.train.batch_size
        if self.trains and batch and batch > len(self.data):
            raise ConfigError(
                f"--batch-size is {batch} but {self.data.name} has only {len(self.data)} images; lower it"
            )

    def choose_top_k(self) -> int:
        n = len(self.data)
        if self.config.top_k and self.config.top_k >= n:
            raise ConfigError(f"top_k is {self.config.top_k} but each of {n} images has only {n - 1} others")
        return self.config.top_k or auto_top_k(n, self.n_clusters)

    def announce(self) -> None:
        info, plan = self.info, self.plan
        kind = "grey" if info.channels == 1 else "colour"
        classes = f", {self.data.n_classes} classes (for scoring only)" if self.data.n_classes else ""
        say = self.progress.note
        images = f"{len(self.data)} {kind} images of {info.height}x{info.width}"
        say(f"data          {self.data.name}: {images}{classes}")
        say(f"backbone      {self.backbone.describe()}")
        if self.trains:
            epochs, joint = self.config.train.epochs, self.config.joint
            say(f"objective     {plan.objective.name}, {epochs} epochs")
            if plan.joint:
                first = round(joint.start * epochs) + 1
                say(f"joint phase   {plan.joint.name} from epoch {first} on, by {joint.form}")
        say(f"coefficients  {plan.coefficients.name} on {self.express}, {self.top_k} per row")
        given = "" if self.config.n_clusters else " (the number of classes)"
        say(f"clusterer     {plan.clusterer.name}, {self.n_clusters} clusters{given}")
        say(f"device        {describe_device(self.device)}, seed {self.config.seed}")

    # -- features --------------------------------------------------------------------------------

    def made_from(self) -> dict[str, Any]:
        """What the features depend on: nothing of the coefficient model, clusterer or labels."""
        parts: dict[str, Any] = {
            "images": self.data.digest(),
            "backbone": self.plan.backbone.record(),
            "seed": self.config.seed,
        }
        if self.trains:
            joint = self.config.joint
            parts |= {
                "objective": self.plan.objective.record(),
                "views": self.views.model_dump(mode="json"),
                "train": self.config.train.model_dump(mode="json"),
                "joint": self.plan.joint
                and {
                    "model": self.plan.joint.record(),
                    "start": joint.start,
                    "form": joint.form,
                    "weight": joint.weight,
                    "express": self.express,
                },
            }
        return parts

    def trained_features(self, directory: RunDirectory) -> Trained:
        """Features from the cache, or trained and extracted now; either way also in the run directory."""
        objective: Objective | None = None
        joint: TrainableCoefficientModel | None = None
        if self.trains:
            objective = self.seeded(self.plan.objective, self.backbone).to(self.device)
            if self.plan.joint:
                width = objective.width if self.express == "embeddings" else self.backbone.width
                joint = self.seeded(self.plan.joint, width).to(self.device)
        modules = _modules(self.backbone, objective, joint)
        folder = self.config.cache or str(user_cache() / "features")
        cache = TrainedCache(None if folder == "none" else Path(folder).expanduser())
        made_from = self.made_from()
        wanted = self.config.precision if self.trains else "any"
        trained, problem = cache.load(made_from, modules, len(self.data), wanted)
        if trained:
            self.progress.note(f"features reused, training skipped ({cache.folder}/{digest(made_from)})")
            for warning in trained.warnings:
                self.progress.warn(warning)
        else:
            if problem:
                self.progress.warn(f"{problem}; computing them anew")
            trained = self.train_and_extract(objective, joint)
            cache.store(made_from, modules, trained)
        self.joint_model = joint
        self.precision = trained.precision
        write_trained(directory.checkpoints, made_from, modules, trained)
        (directory.checkpoints / TRAINING).unlink()  # its content goes into metrics.json
        shutil.move(directory.checkpoints / FEATURES, directory.beside / FEATURES)
        add_identity(directory.beside / FEATURES, self.data.ids, self.data.labels)
        return trained

    def train_and_extract(
        self, objective: Objective | None, joint: TrainableCoefficientModel | None
    ) -> Trained:
        images = self.place_images()
        history: list[dict[str, Any]] = []
        precision, before = "none", len(self.progress.warnings)
        if objective is not None:
            trainer = self.trainer(objective, joint, images)
            trainer.bf16, why = choose_precision(
                self.config.precision,
                self.device,
                min(self.info.height, self.info.width),
                trainer.trial_step,
            )
            precision = "bf16" if trainer.bf16 else "fp32"
            self.progress.note(f"precision     {why}")
            with self.stage("training"):
                trainer.fit()
            history = [asdict(epoch) for epoch in trainer.history]
        with self.stage("features"):
            table = extract(self.backbone, objective, images, self.device, self.progress)
        if not bool(torch.isfinite(table.features).all()):
            raise TrainingError(
                "the backbone's features are not finite; lower train.lr or use --precision fp32"
            )
        return Trained(table, history, precision, self.progress.warnings[before:])

    def trainer(
        self, objective: Objective, joint: TrainableCoefficientModel | None, images: Tensor
    ) -> JointTrainer:
        objective.to(memory_format=torch.channels_last)
        return JointTrainer(
            objective=objective,
            model=joint,
            images=images,
            device=self.device,
            bf16=False,
            views=self.views,
            options=self.config.train,
            joint=self.config.joint,
            express=self.express,
            n_clusters=self.n_clusters,
            seed=self.config.seed,
            progress=self.progress,
        )

    def place_images(self) -> Tensor:
        """All images on the device as uint8 if they fit comfortably, else on the host."""
        images = self.data.images
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            if images.nbytes > DEVICE_SHARE * free:
                self.progress.note("images stay in host memory: they would crowd the device")
                return images.pin_memory()
        return images.to(self.device)

    # -- coefficients and clusters ---------------------------------------------------------------

    def coefficient_model(self, width: int) -> CoefficientModel:
        model: CoefficientModel = self.seeded(self.plan.coefficients, width)
        if isinstance(model, TrainableCoefficientModel):
            self.warm_start(model)
            return model.to(self.device)
        return model

    def warm_start(self, model: TrainableCoefficientModel) -> None:
        """Go on from the jointly trained weights, where this is the same model."""
        joint = self.joint_model
        if joint is None or self.plan.joint is None or type(joint) is not type(model):
            return
        state = joint.state_dict()
        if {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in model.state_dict().items()}:
            model.load_state_dict(state)
            self.progress.note(f"{self.plan.coefficients.name} goes on from its joint training")

    def refine(self, model: CoefficientModel, rows: Tensor) -> None:
        if not isinstance(model, TrainableCoefficientModel):
            return
        model.train()
        refine(model, rows.to(self.device), self.config.refine, self.config.seed, self.progress)
        model.eval()

    def affinity(self, model: CoefficientModel, rows: Tensor) -> sparse.csr_matrix:
        self.model = model
        return affinity(self_expressive_coefficients(model, rows.to(self.device), self.top_k))

    def cluster(self, graph: sparse.csr_matrix, rows: Tensor) -> tuple[Clusterer, np.ndarray]:
        clusterer: Clusterer = self.plan.clusterer.build(self.n_clusters, self.config.seed)
        clusters = clusterer.fit_predict(graph if clusterer.consumes == "affinity" else rows.numpy())
        for warning in getattr(clusterer, "warnings_", []):
            self.progress.warn(warning)
        found = len(np.unique(clusters[clusters >= 0]))
        if found != self.n_clusters:
            self.progress.warn(f"{self.plan.clusterer.name} found {found} clusters, not {self.n_clusters}")
        return clusterer, clusters

    # -- results ---------------------------------------------------------------------------------

    def figures(
        self,
        graph: sparse.csr_matrix,
        rows: Tensor,
        clusterer: Clusterer,
        clusters: np.ndarray,
        trained: Trained,
    ) -> dict[str, Any]:
        with self.stage("figures"):
            eigenvalues = getattr(clusterer, "eigenvalues_", None)
            if eigenvalues is None or len(eigenvalues) <= self.n_clusters:
                count = min(self.n_clusters + 1, len(rows))
                eigenvalues = leading_eigenpairs(graph, count, self.config.seed).values
            free = metrics.label_free(
                rows.numpy(), graph, clusters, eigenvalues, self.n_clusters, self.config.seed
            )
            labels = self.data.labels
            scores = None if labels is None else metrics.scores(labels, clusters)
        return {
            "scores": scores,
            "label_free": free,
            "images": len(rows),
            "eigenvalues": [round(float(value), 6) for value in eigenvalues],
            "seconds": {name: round(value, 2) for name, value in self.seconds.items()},
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "warnings": self.progress.warnings,
            "training": trained.history,
        }

    def write(
        self,
        directory: RunDirectory,
        graph: sparse.csr_matrix,
        clusters: np.ndarray,
        figures: dict[str, Any],
    ) -> None:
        if isinstance(self.model, nn.Module):
            from ebsc_core.training.state import save_weights

            save_weights(self.model, directory.checkpoints / "coefficients.safetensors")
        directory.write_assignments(
            self.data.ids, clusters, metrics.confidence(graph, clusters), self.data.labels
        )
        directory.write_metrics(figures)
        directory.write_config(self.resolved())

    def resolved(self) -> dict[str, Any]:
        """The whole configuration; ``ebsc run --config run.toml`` repeats the run."""
        tables = self.config.model_dump(mode="json", exclude={"out", "cache"})
        choices = {
            "data": self.plan.data,
            "backbone": self.plan.backbone,
            "objective": self.plan.objective,
            "joint": self.plan.joint,
            "coefficients": self.plan.coefficients,
            "clusterer": self.plan.clusterer,
        }
        for section, choice in choices.items():
            if choice:
                tables[section] |= {"name": choice.name} | choice.options.model_dump(mode="json")
        path = Path(self.plan.data.name)
        if path.exists() and "/" in str(path.absolute()):
            tables["data"]["name"] = str(path.absolute())
        tables["views"] = self.views.model_dump(mode="json")
        tables |= {
            "n_clusters": self.n_clusters,
            "top_k": self.top_k,
            "express": self.express,
            "device": str(self.device),
        }
        if self.trains:
            tables["precision"] = self.precision
        providers = {section: str(choice.part.provider) for section, choice in choices.items() if choice}
        return tables | {PROVENANCE: provenance() | {"parts": providers}}

    # -- helpers ---------------------------------------------------------------------------------

    def seeded(self, choice: Any, *arguments: Any) -> Any:
        """Build a part with the random state the seed alone decides."""
        torch.manual_seed(self.config.seed)
        return choice.build(*arguments)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def _modules(
    backbone: Backbone, objective: Objective | None, joint: TrainableCoefficientModel | None
) -> dict[str, nn.Module]:
    """What is saved, by file name; the objective without the backbone it holds."""
    modules: dict[str, nn.Module] = {"backbone": backbone}
    if objective is not None:
        modules["objective"] = objective
    if joint is not None:
        modules["joint"] = joint
    return modules

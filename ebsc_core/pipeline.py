"""The stages of a run in their order; the only place that sees them all.

images → warm-up → joint training → features (HDF5) → refined coefficient model → sparse
coefficients → affinity → clusters → figures.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from torch import Tensor, nn

from ebsc_core import metrics
from ebsc_core.cache import FEATURES, Trained, user_cache
from ebsc_core.coefficients import affinity, self_expressive_coefficients
from ebsc_core.config import PROVENANCE, RefineOptions, RunConfig
from ebsc_core.data.images import ImageSet
from ebsc_core.device import describe_device, prepare, resolve_device
from ebsc_core.eigen import leading_eigenpairs
from ebsc_core.errors import DataError
from ebsc_core.held_out import Assigned, assign, split
from ebsc_core.interfaces import (
    Backbone,
    Clusterer,
    CoefficientModel,
    DataContext,
    TrainableCoefficientModel,
)
from ebsc_core.plan import make_plan
from ebsc_core.progress import Progress
from ebsc_core.registry import Registry
from ebsc_core.representation import Representation
from ebsc_core.ridge import Whitening
from ebsc_core.rows import StoredRows
from ebsc_core.runs import RunDirectory, default_path, peak_memory_mib, provenance
from ebsc_core.settle import Preferences, settle
from ebsc_core.training.refine import refine
from ebsc_core.training.state import save_weights


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
        For whatever the user can mend; no run directory is left behind then.
    """
    return Pipeline(config, registry, progress).run()


class Pipeline:
    """One run. Cheap checks come first, so that a mistake costs seconds and not a training."""

    def __init__(self, config: RunConfig, registry: Registry, progress: Progress) -> None:
        self.config, self.progress = config, progress
        self.plan = make_plan(config, registry)
        self.device = resolve_device(config.device)
        self.directory = RunDirectory(Path(config.out) if config.out else self._default_path())
        self.refinement: RefineOptions = config.refine
        self.whitening: Whitening | None = None
        self.seconds: dict[str, float] = {}

    def run(self) -> RunResult:
        """All stages."""
        prepare(self.device)
        with self._stage("read data"):
            self.data = self._read_data()
        self.held_out: ImageSet | None = None
        if self.config.protocol == "train-test":
            self.data, self.held_out = split(self.data, self.config.test_share, self.config.seed)
        self.info = self.data.info()
        backbone: Backbone = self.plan.backbone.build_seeded(self.config.seed, self.info).to(self.device)
        self.settled = settle(self.config, self.data, self.info, backbone, Preferences.of(self.plan))
        self._announce(backbone)
        with self.directory as directory:
            representation = Representation(
                self.plan, self.settled, self.data, self.info, backbone, self.device, self.progress
            )
            trained = representation.obtain(directory)
            self.seconds |= representation.seconds
            rows = StoredRows(directory.beside / FEATURES, self.settled.express).held()
            dictionary = rows.to(self.device)
            if self.settled.whiten:
                with self._stage("whitening"):
                    self.whitening = Whitening(dictionary)
                    dictionary = self.whitening(dictionary)
            model = self._coefficient_model(dictionary, representation.joint)
            with self._stage("coefficients"):
                coefficients = self_expressive_coefficients(model, dictionary, self.settled.top_k)
                graph = affinity(coefficients, self.config.affinity)
            self._pass_on_warnings(model)
            with self._stage("clusters"):
                clusterer, clusters = self._cluster(graph, rows)
            with self._stage("figures"):
                figures = self._figures(graph, rows, clusterer, clusters)
            found = [(self.data, clusters, metrics.confidence(graph, clusters))]
            if self.held_out:
                with self._stage("held-out images"):
                    assigned = self._assign(self.held_out, representation, model, dictionary, clusters)
                found.append((self.held_out, assigned.clusters, assigned.confidence))
            figures |= self._scores(*found[-1][:2]) | self._circumstances(trained)
            with directory.writing():
                representation.write(directory)
                if isinstance(model, nn.Module):
                    save_weights(model, directory.checkpoints / "coefficients.safetensors")
                directory.write_assignments(_columns(found))
                directory.write_config(self._resolved(representation, trained))
                directory.write_metrics(figures)
        return RunResult(self.directory.path, figures)

    def _default_path(self) -> Path:
        plan = self.plan
        parts = [plan.backbone, plan.objective, plan.coefficients, plan.clusterer]
        data = Path(plan.data.name).stem or "data"
        return default_path([data, *(part.name for part in parts)], self.config.seed)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start

    def _read_data(self) -> ImageSet:
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

    def _announce(self, backbone: Backbone) -> None:
        plan, settled, say = self.plan, self.settled, self.progress.note
        kind = "grey" if self.info.channels == 1 else "colour"
        images = f"{len(self.data)} {kind} images of {self.info.height}x{self.info.width}"
        classes = f", {self.data.n_classes} classes (for scoring only)" if self.data.n_classes else ""
        say(f"data          {self.data.name}: {images}{classes}")
        if self.held_out:
            say(f"protocol      {len(self.held_out)} more are held out, assigned afterwards, and scored")
        say(f"backbone      {backbone.describe()}")
        if settled.trains:
            epochs, joint = self.config.train.epochs, self.config.joint
            say(f"objective     {plan.objective.name}, {epochs} epochs, batches of {settled.batch_size}")
            if plan.joint:
                first = round(joint.start * epochs) + 1
                say(f"joint phase   {plan.joint.name} from epoch {first} on, by {joint.form}")
        elif self.config.train.epochs > 0:
            say(f"objective     none: backbone {plan.backbone.name} has nothing to train")
        express = f"whitened {settled.express}" if settled.whiten else settled.express
        say(f"coefficients  {plan.coefficients.name} on {express}, {settled.top_k} per row")
        given = "" if self.config.n_clusters else " (the number of classes)"
        say(f"clusterer     {plan.clusterer.name}, {settled.n_clusters} clusters{given}")
        say(f"device        {describe_device(self.device)}, seed {self.config.seed}")

    def _coefficient_model(self, rows: Tensor, joint: TrainableCoefficientModel | None) -> CoefficientModel:
        """The coefficient model, refined on the features if it can learn."""
        choice = self.plan.coefficients
        model: CoefficientModel = choice.build_seeded(self.config.seed, rows.shape[1])
        if not isinstance(model, TrainableCoefficientModel):
            return model
        if joint is not None:
            self._go_on(joint, model)
        model.to(self.device).train()
        given = self.config.refine.model_dump(exclude_unset=True)
        self.refinement = RefineOptions(**(model.refinement() | given))
        with self._stage("refine coefficients"):
            refine(model, rows, self.refinement, self.config.seed, self.progress)
        return model.eval()

    def _go_on(self, joint: TrainableCoefficientModel, model: TrainableCoefficientModel) -> None:
        """Start from the jointly trained weights if this is the same model, used to such rows."""
        name, settled = self.plan.coefficients.name, self.settled
        if settled.joint_whiten != settled.whiten:
            self.progress.note(f"{name} starts afresh: rows were whitened in one phase only")
        elif _copy_weights(joint, model):
            self.progress.note(f"{name} goes on from its joint training")

    def _cluster(self, graph: sparse.csr_matrix, rows: Tensor) -> tuple[Clusterer, np.ndarray]:
        wanted = self.settled.n_clusters
        clusterer: Clusterer = self.plan.clusterer.build(wanted, self.config.seed)
        clusters = clusterer.fit_predict(graph if clusterer.consumes == "affinity" else rows.numpy())
        self._pass_on_warnings(clusterer)
        found = len(np.unique(clusters[clusters >= 0]))
        if found != wanted:
            self.progress.warn(f"{self.plan.clusterer.name} found {found} clusters, not {wanted}")
        return clusterer, clusters

    def _pass_on_warnings(self, part: CoefficientModel | Clusterer) -> None:
        for warning in getattr(part, "warnings_", []):
            self.progress.warn(warning)

    def _figures(
        self, graph: sparse.csr_matrix, rows: Tensor, clusterer: Clusterer, clusters: np.ndarray
    ) -> dict[str, Any]:
        wanted, seed = self.settled.n_clusters, self.config.seed
        eigenvalues = getattr(clusterer, "eigenvalues_", None)
        if eigenvalues is None or len(eigenvalues) <= wanted:
            eigenvalues = leading_eigenpairs(graph, min(wanted + 1, len(rows)), seed).values
        return {
            "label_free": metrics.label_free(rows.numpy(), graph, clusters, eigenvalues, wanted, seed),
            "eigenvalues": [round(float(value), 6) for value in eigenvalues],
        }

    def _assign(
        self,
        images: ImageSet,
        representation: Representation,
        model: CoefficientModel,
        dictionary: Tensor,
        clusters: np.ndarray,
    ) -> Assigned:
        path = self.directory.beside / "held-out.h5"
        with self.directory.writing():
            representation.extract(images.images, path)
        new = StoredRows(path, self.settled.express).held().to(self.device)
        path.unlink()
        if self.whitening:
            new = self.whitening(new)
        assigned = assign(model, new, dictionary, clusters, self.settled.top_k)
        self._pass_on_warnings(model)
        return assigned

    def _scores(self, scored: ImageSet, clusters: np.ndarray) -> dict[str, Any]:
        return {
            "protocol": self.config.protocol,
            "scored_images": len(scored),
            "scores": None if scored.labels is None else metrics.scores(scored.labels, clusters),
        }

    def _circumstances(self, trained: Trained) -> dict[str, Any]:
        return {
            "images": len(self.data),
            "seconds": {name: round(value, 2) for name, value in self.seconds.items()},
            "peak_memory_mib": peak_memory_mib(),
            "features_cost": trained.cost,
            "warnings": self.progress.warnings,
            "training": trained.history,
        }

    def _resolved(self, representation: Representation, trained: Trained) -> dict[str, Any]:
        """The whole configuration; ``ebsc run --config run.toml`` repeats the run."""
        tables = self.config.model_dump(mode="json", exclude={"out", "cache"})
        choices = self.plan.choices()
        for section, choice in choices.items():
            tables[section] |= {"name": choice.name} | choice.options.model_dump(mode="json")
        path = Path(self.plan.data.name)
        if path.exists():
            tables["data"]["name"] = str(path.absolute())
        settled = self.settled
        tables |= {
            "views": settled.views.model_dump(mode="json"),
            "n_clusters": settled.n_clusters,
            "top_k": settled.top_k,
            "refine": self.refinement.model_dump(mode="json"),
            "express": settled.express,
            "whiten": settled.whiten,
            "device": str(self.device),
        }
        if settled.trains:
            tables["precision"] = trained.precision
            tables["train"]["batch_size"] = settled.batch_size
        suppliers = {section: str(choice.part.provider) for section, choice in choices.items()}
        return tables | {PROVENANCE: provenance() | {"parts": suppliers}}


def _columns(found: list[tuple[ImageSet, np.ndarray, np.ndarray]]) -> dict[str, list[Any]]:
    """The columns of ``assignments.csv`` from images, clusters and confidence: fitted, then held out."""
    columns: dict[str, list[Any]] = {
        "image": [name for images, _, _ in found for name in images.ids],
        "cluster": [int(cluster) for _, clusters, _ in found for cluster in clusters],
        "confidence": [f"{value:.4f}" for _, _, confidence in found for value in confidence],
    }
    if found[0][0].labels is not None:
        columns["label"] = [name for images, _, _ in found for name in images.label_names() or []]
    if len(found) > 1:
        columns["split"] = ["train"] * len(found[0][0]) + ["test"] * len(found[1][0])
    return columns


def _copy_weights(joint: TrainableCoefficientModel, model: TrainableCoefficientModel) -> bool:
    """Copy the jointly trained weights if this is the same model; whether it was."""
    state = joint.state_dict()
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    if type(joint) is not type(model) or {n: v.shape for n, v in state.items()} != shapes:
        return False
    model.load_state_dict(state)
    return True

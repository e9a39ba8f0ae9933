"""The stages of a run in their order; the only place that sees them all.

images → warm-up → joint training → features (HDF5) → refined coefficient model → sparse
coefficients → affinity → clusters → figures.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ebsc_core import metrics
from ebsc_core.assignment import Assigned
from ebsc_core.cache import Trained, user_cache
from ebsc_core.clustering import Clustered, Method, cluster_best
from ebsc_core.coefficients import Dictionary
from ebsc_core.config import PROVENANCE, RefineOptions, RunConfig
from ebsc_core.data.source import ImageSource
from ebsc_core.device import describe_device, own_device, prepare
from ebsc_core.eigen import leading_eigenpairs
from ebsc_core.errors import DataError
from ebsc_core.features import FEATURES
from ebsc_core.held_out import split
from ebsc_core.interfaces import (
    Backbone,
    Clusterer,
    CoefficientModel,
    DataContext,
    TrainableCoefficientModel,
)
from ebsc_core.machine import available_memory
from ebsc_core.observers import Observers
from ebsc_core.plan import make_plan
from ebsc_core.progress import Progress, Stages
from ebsc_core.ranks import Ranks
from ebsc_core.registry import Registry
from ebsc_core.representation import Representation
from ebsc_core.rows import Rows, StoredRows
from ebsc_core.runs import RunDirectory, default_path, peak_memory_mib, provenance
from ebsc_core.settle import Preferences, settle
from ebsc_core.training.state import save_weights

# Below this share of the largest coefficients, a search that is not exact is worth a warning.
LEAST_RECALL = 0.9


@dataclass(frozen=True)
class RunResult:
    """What a finished run came to."""

    directory: Path
    metrics: dict[str, Any]


def run(config: RunConfig, registry: Registry, progress: Progress) -> RunResult | None:
    """Do everything ``config`` says and leave a run directory.

    Of several processes that a launcher has started, all train and the first returns a result.

    Raises
    ------
    EbscError
        For whatever the user can mend; no run directory is left behind then.
    """
    pipeline = Pipeline(config, registry, progress)
    with pipeline.ranks.together():
        return pipeline.run()


class Pipeline:
    """One run. Cheap checks come first, so that a mistake costs seconds and not a training."""

    def __init__(self, config: RunConfig, registry: Registry, progress: Progress) -> None:
        self.config, self.progress = config, progress
        self.plan = make_plan(config, registry)
        self.device = own_device(config.device)
        self.ranks = Ranks.join(self.device)
        with self.ranks.agreed():
            if self.ranks.main:
                self.directory = RunDirectory(Path(config.out) if config.out else self._default_path())
                self.observers = Observers(
                    self.plan.observers.values(), self.directory.path.absolute(), progress.warn
                )
            else:
                self.observers = Observers()
        self.refinement: RefineOptions = config.refine
        self.whiten = False
        """Whether rows were, once that is settled."""
        self.tried: dict[str, float] | None = None
        """What share of the affinity stayed within clusters, if it was settled by that."""
        self.stage = Stages(self.observers.stage_finished)

    def run(self) -> RunResult | None:
        """All stages, of which observers are told."""
        try:
            self.observers.run_started(self._asked(), self.plan.suppliers())
            result = self._run()
        except BaseException as error:
            self.observers.run_failed(error)
            raise
        if result:
            self.observers.run_finished(result.metrics)
        return result

    def _run(self) -> RunResult | None:
        """All stages; of several processes, all but the first take part in training alone."""
        prepare(self.device)
        # Whether images are held or streamed must not hang on what another process holds already.
        self.memory = self.ranks.broadcast(available_memory())
        with self.stage("read data"):
            self.data = self.ranks.in_turn(self._read_data)
        with self.ranks.agreed():
            backbone = self._settle()
        self._announce(backbone)
        if not self.ranks.main:
            self._representation(backbone).assist()
            return None
        with self.directory as directory:
            representation = self._representation(backbone)
            trained = representation.obtain(directory)
            for name, seconds in representation.seconds.items():
                self.stage.note(name, seconds)
            rows = StoredRows(directory.beside / FEATURES, self.settled.express)
            method, found = self._cluster(rows, representation.joint)
            self._check_clusters(method.clusterer, found.clusters)
            with self.stage("figures"):
                figures = self._figures(rows, found, method.clusterer)
            scored = [(self.data, Assigned(found.clusters, found.confidence))]
            if self.held_out:
                with self.stage("held-out images"):
                    scored.append((self.held_out, self._assign(self.held_out, representation, found)))
            self._pass_on_warnings(method.model)
            figures |= self._scores(*scored[-1]) | self._circumstances(trained)
            with directory.writing():
                representation.write(directory)
                if isinstance(method.model, nn.Module):
                    save_weights(method.model, directory.checkpoints / "coefficients.safetensors")
                directory.write_affinity(found.graph)
                directory.write_assignments(_columns(scored))
                directory.write_config(self._resolved(representation, trained))
                directory.write_metrics(figures)
        return RunResult(self.directory.path, figures)

    def _default_path(self) -> Path:
        plan = self.plan
        parts = [plan.backbone, plan.objective, plan.coefficients, plan.clusterer]
        data = Path(plan.data.name).stem or "data"
        return default_path([data, *(part.name for part in parts)], self.config.seed)

    def _read_data(self) -> ImageSource:
        choice = self.config.data
        context = DataContext(
            root=Path(choice.root).expanduser() if choice.root else user_cache() / "data",
            skip_bad_images=choice.skip_bad_images,
            limit=choice.limit,
            seed=self.config.seed,
            memory=self.memory,
            workers=choice.workers,
            warn=self.progress.warn,
        )
        data = self.plan.data.build(context)
        if not isinstance(data, ImageSource):
            raise DataError(f"data set {self.plan.data.name!r} returned no ImageSet or other ImageSource")
        return data.sample(choice.limit, self.config.seed)

    def _settle(self) -> Backbone:
        """Everything that was left open, and the backbone that some of it hangs on."""
        self.held_out: ImageSource | None = None
        if self.config.protocol == "train-test":
            self.data, self.held_out = split(self.data, self.config.test_share, self.config.seed)
        self.info = self.data.info()
        backbone: Backbone = self.plan.backbone.build_seeded(self.config.seed, self.info).to(self.device)
        preferences = Preferences.of(self.plan)
        self.settled = settle(self.config, self.data, self.info, backbone, preferences, self.ranks.count)
        return backbone

    def _representation(self, backbone: Backbone) -> Representation:
        return Representation(
            self.plan,
            self.settled,
            self.data,
            self.info,
            backbone,
            self.device,
            self.progress,
            self.ranks,
            self.observers,
        )

    def _announce(self, backbone: Backbone) -> None:
        plan, settled, say = self.plan, self.settled, self.progress.note
        kind = "grey" if self.info.channels == 1 else "colour"
        images = f"{len(self.data)} {kind} images of {self.info.height}x{self.info.width}{self.data.where()}"
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
        if settled.dictionary_size:
            size, n = settled.dictionary_size, len(self.data)
            say(f"dictionary    {size} of {n} images are clustered; the others join them")
        form = {True: "whitened ", False: "", "choose": "plain or whitened "}[settled.whiten]
        express = f"{form}{settled.express}"
        say(f"coefficients  {plan.coefficients.name} on {express}, {settled.top_k} per row")
        given = "" if self.config.n_clusters else " (the number of classes)"
        say(f"clusterer     {plan.clusterer.name}, {settled.n_clusters} clusters{given}")
        processes = f" in each of {self.ranks.count} processes" if self.ranks.count > 1 else ""
        if plan.observers:
            say(f"observers     {', '.join(plan.observers)}")
        say(f"device        {describe_device(self.device)}{processes}, seed {self.config.seed}")

    def _cluster(self, rows: Rows, joint: TrainableCoefficientModel | None) -> tuple[Method, Clustered]:
        wished = self.settled.whiten
        ways = (False, True) if wished == "choose" else (wished,)
        methods = [self._method(rows.width, joint, whiten) for whiten in ways]
        method, kept, found = cluster_best(rows, methods, self.stage, self.progress)
        self.whiten = method.whiten
        if wished == "choose":
            self.tried = dict(zip(("plain", "whitened"), kept, strict=True))
            shares = " and ".join(f"{share:.1%} {way}" for way, share in self.tried.items())
            chosen = "whitened" if method.whiten else "plain"
            self.progress.note(f"{chosen} rows are chosen: of the affinity, {shares} stay within clusters")
        return method, found

    def _method(self, width: int, joint: TrainableCoefficientModel | None, whiten: bool) -> Method:
        """The parts that turn rows of this width into clusters, and what is settled about them."""
        config, settled = self.config, self.settled
        model: CoefficientModel = self.plan.coefficients.build_seeded(config.seed, width)
        if isinstance(model, TrainableCoefficientModel):
            if joint is not None:
                self._go_on(joint, model, whiten)
            model.to(self.device)
            self.refinement = RefineOptions(
                **(model.refinement() | config.refine.model_dump(exclude_unset=True))
            )
        return Method(
            model=model,
            clusterer=self.plan.clusterer.build(settled.n_clusters, config.seed),
            top_k=settled.top_k,
            whiten=whiten,
            refine=self.refinement,
            search=config.search,
            affinity=config.affinity,
            dictionary_size=settled.dictionary_size,
            seed=config.seed,
            device=self.device,
        )

    def _go_on(
        self, joint: TrainableCoefficientModel, model: TrainableCoefficientModel, whiten: bool
    ) -> None:
        """Start from the jointly trained weights if this is the same model, used to such rows."""
        name = self.plan.coefficients.name
        if self.settled.joint_whiten != whiten:
            self.progress.note(f"{name} starts afresh: rows were whitened in one phase only")
        elif _copy_weights(joint, model):
            self.progress.note(f"{name} goes on from its joint training")

    def _check_clusters(self, clusterer: Clusterer, clusters: np.ndarray) -> None:
        self._pass_on_warnings(clusterer)
        found, wanted = len(np.unique(clusters[clusters >= 0])), self.settled.n_clusters
        # A clusterer that says so itself may say why.
        if found != wanted and not getattr(clusterer, "warnings_", []):
            self.progress.warn(f"{self.plan.clusterer.name} found {found} clusters, not {wanted}")

    def _pass_on_warnings(self, part: CoefficientModel | Clusterer) -> None:
        for warning in getattr(part, "warnings_", []):
            self.progress.warn(warning)

    def _figures(self, rows: Rows, found: Clustered, clusterer: Clusterer) -> dict[str, Any]:
        wanted, seed, graph = self.settled.n_clusters, self.config.seed, found.graph
        eigenvalues = getattr(clusterer, "eigenvalues_", None)
        if eigenvalues is None or len(eigenvalues) <= wanted:
            eigenvalues = leading_eigenpairs(graph, min(wanted + 1, graph.shape[0]), seed).values
        within = found.confidence[found.chosen]
        label_free = metrics.label_free(rows, found.clusters, graph, within, eigenvalues, wanted, seed)
        if found.agreement is not None:
            label_free["dictionary_agreement"] = found.agreement
        return {
            "dictionary_size": self.settled.dictionary_size,
            "within_by_whitening": self.tried,
            "search": self._search(found.dictionary),
            "label_free": label_free,
            "eigenvalues": [round(float(value), 6) for value in eigenvalues],
        }

    def _search(self, dictionary: Dictionary) -> dict[str, Any]:
        """How coefficients were searched, and what share of the largest were found."""
        found = dictionary.recall
        if found is not None and found < LEAST_RECALL:
            self.progress.warn(
                f"the search found {found:.0%} of the largest coefficients; raise search.probes, which is "
                f"{self.config.search.probes}, or use --set search.method=exact"
            )
        return {"method": dictionary.method, "recall": None if found is None else round(found, 4)}

    def _assign(self, images: ImageSource, representation: Representation, found: Clustered) -> Assigned:
        path = self.directory.beside / "held-out.h5"
        with self.directory.writing(), closing(images):
            representation.extract(images, path)
        assigned = found.assign(StoredRows(path, self.settled.express))
        path.unlink()
        return assigned

    def _scores(self, scored: ImageSource, assigned: Assigned) -> dict[str, Any]:
        return {
            "protocol": self.config.protocol,
            "scored_images": len(scored),
            "scores": None if scored.labels is None else metrics.scores(scored.labels, assigned.clusters),
        }

    def _circumstances(self, trained: Trained) -> dict[str, Any]:
        return {
            "images": len(self.data),
            "processes": self.ranks.count,
            "seconds": {name: round(value, 2) for name, value in self.stage.seconds.items()},
            "peak_memory_mib": peak_memory_mib(),
            "features_cost": trained.cost,
            "warnings": self.progress.warnings,
            "training": trained.history,
        }

    def _asked(self) -> dict[str, Any]:
        """The whole configuration as far as it is known before anything is read."""
        tables = self.plan.tables()
        path = Path(self.plan.data.name)
        if path.exists():
            tables["data"]["name"] = str(path.absolute())
        return tables

    def _resolved(self, representation: Representation, trained: Trained) -> dict[str, Any]:
        """The whole configuration; ``ebsc run --config run.toml`` repeats the run."""
        settled = self.settled
        tables = self._asked() | {
            "views": settled.views.model_dump(mode="json"),
            "n_clusters": settled.n_clusters,
            "dictionary_size": settled.dictionary_size,
            "top_k": settled.top_k,
            "refine": self.refinement.model_dump(mode="json"),
            "express": settled.express,
            "whiten": self.whiten,
            # Its number is that of the process, of several.
            "device": str(self.device) if self.ranks.count == 1 else self.device.type,
        }
        if settled.trains:
            tables["precision"] = trained.precision
            tables["train"]["batch_size"] = settled.batch_size
        made_with = provenance() | {"parts": self.plan.suppliers(), "images": asdict(self.info)}
        return tables | {PROVENANCE: made_with}


def _columns(found: list[tuple[ImageSource, Assigned]]) -> dict[str, Iterable[Any]]:
    """The columns of ``assignments.csv``, fitted images before those held out; none is held as a list."""
    columns: dict[str, Iterable[Any]] = {
        "image": chain.from_iterable(images.ids for images, _ in found),
        "cluster": chain.from_iterable(assigned.clusters for _, assigned in found),
        "confidence": (f"{value:.4f}" for _, assigned in found for value in assigned.confidence),
    }
    if found[0][0].labels is not None:
        columns["label"] = chain.from_iterable(images.label_names() or [] for images, _ in found)
    if len(found) > 1:
        names = zip(found, ("train", "test"), strict=True)
        columns["split"] = chain.from_iterable(repeat(name, len(images)) for (images, _), name in names)
    return columns


def _copy_weights(joint: TrainableCoefficientModel, model: TrainableCoefficientModel) -> bool:
    """Copy the jointly trained weights if this is the same model; whether it was."""
    state = joint.state_dict()
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    if type(joint) is not type(model) or {n: v.shape for n, v in state.items()} != shapes:
        return False
    model.load_state_dict(state)
    return True

"""The half of a run that comes after its features: coefficients, affinity, clusters, figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ebsc_core import metrics
from ebsc_core.clustering import Clustered, Method, cluster_best
from ebsc_core.coefficients import Dictionary
from ebsc_core.config import RefineOptions
from ebsc_core.device import device_memory
from ebsc_core.eigen import leading_eigenpairs
from ebsc_core.interfaces import Clusterer, CoefficientModel, TrainableCoefficientModel
from ebsc_core.plan import Plan
from ebsc_core.progress import Progress, Stages
from ebsc_core.rows import Rows
from ebsc_core.settle import SettledCut

# Below this share of the largest coefficients, a search that is not exact is worth a warning.
LEAST_RECALL = 0.9


@dataclass(frozen=True)
class Joint:
    """A coefficient model that has been trained along with the features."""

    model: TrainableCoefficientModel
    whiten: bool
    """Whether the rows were whitened then."""


@dataclass(frozen=True)
class Cut:
    """Rows that have been clustered."""

    method: Method
    """The parts as built and, where they can learn, trained; with all that was settled about them."""
    found: Clustered
    n_clusters: int
    """How many were asked for."""
    figures: dict[str, Any]
    """What needs no labels, as plain values."""

    @property
    def model(self) -> CoefficientModel:
        return self.method.model

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What is saved, by file name."""
        return {"coefficients": self.model} if isinstance(self.model, nn.Module) else {}

    def settings(self) -> dict[str, Any]:
        """What was settled, as the configuration has it."""
        method = self.method
        return {
            "n_clusters": self.n_clusters,
            "dictionary_size": method.dictionary_size,
            "top_k": method.top_k,
            "refine": method.refine.model_dump(mode="json"),
            "whiten": method.whiten,
        }


class Cutter:
    """Builds what turns rows into clusters, and lets it."""

    def __init__(
        self, plan: Plan, settled: SettledCut, device: torch.device, stage: Stages, progress: Progress
    ) -> None:
        self.plan, self.settled, self.config = plan, settled, plan.config
        self.device, self.stage, self.progress = device, stage, progress

    def cut(self, rows: Rows, joint: Joint | None = None) -> Cut:
        """Cluster unit-length rows ``(N, D)``; the coefficient model goes on from ``joint`` if it is that."""
        wished = self.settled.whiten
        ways = (False, True) if wished == "choose" else (wished,)
        methods = [self.method(rows.width, whiten, joint) for whiten in ways]
        with device_memory(self.device) as held:
            method, kept, found = cluster_best(rows, methods, self.stage, self.progress)
            peak = held()
        tried = None
        if wished == "choose":
            tried = dict(zip(("plain", "whitened"), kept, strict=True))
            shares = " and ".join(f"{share:.1%} {way}" for way, share in tried.items())
            chosen = "whitened" if method.whiten else "plain"
            self.progress.note(f"{chosen} rows are chosen: of the affinity, {shares} stay within clusters")
        self._check_clusters(method.clusterer, found.clusters)
        with self.stage("figures"):
            figures = self._figures(rows, found, method.clusterer, tried)
        figures["clustering_device_memory_mib"] = peak
        return Cut(method, found, self.settled.n_clusters, figures)

    def method(self, width: int, whiten: bool, joint: Joint | None = None) -> Method:
        """The parts that turn rows of this width into clusters, and what is settled about them."""
        config, settled = self.config, self.settled
        model: CoefficientModel = self.plan.coefficients.build_seeded(config.seed, width)
        refinement = config.refine
        if isinstance(model, TrainableCoefficientModel):
            if joint is not None:
                self._go_on(joint, model, whiten)
            model.to(self.device)
            refinement = RefineOptions(**(model.refinement() | config.refine.model_dump(exclude_unset=True)))
        return Method(
            model=model,
            clusterer=self.plan.clusterer.build(settled.n_clusters, config.seed),
            top_k=settled.top_k,
            whiten=whiten,
            refine=refinement,
            search=config.search,
            affinity=config.affinity,
            dictionary_size=settled.dictionary_size,
            seed=config.seed,
            device=self.device,
        )

    def _go_on(self, joint: Joint, model: TrainableCoefficientModel, whiten: bool) -> None:
        """Start from the jointly trained weights if this is the same model, used to such rows."""
        name = self.plan.coefficients.name
        if joint.whiten != whiten:
            self.progress.note(f"{name} starts afresh: rows were whitened in one phase only")
        elif _copy_weights(joint.model, model):
            self.progress.note(f"{name} goes on from its joint training")

    def _check_clusters(self, clusterer: Clusterer, clusters: np.ndarray) -> None:
        self.pass_on_warnings(clusterer)
        found, wanted = len(np.unique(clusters[clusters >= 0])), self.settled.n_clusters
        # A clusterer that says so itself may say why.
        if found != wanted and not getattr(clusterer, "warnings_", []):
            self.progress.warn(f"{self.plan.clusterer.name} found {found} clusters, not {wanted}")

    def pass_on_warnings(self, part: CoefficientModel | Clusterer) -> None:
        """Tell the user what a part has to say."""
        for warning in getattr(part, "warnings_", []):
            self.progress.warn(warning)

    def _figures(
        self, rows: Rows, found: Clustered, clusterer: Clusterer, tried: dict[str, float] | None
    ) -> dict[str, Any]:
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
            "within_by_whitening": tried,
            "search": self._search(found.joining.dictionary),
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


def _copy_weights(joint: TrainableCoefficientModel, model: TrainableCoefficientModel) -> bool:
    """Copy the jointly trained weights if this is the same model; whether it was."""
    state = joint.state_dict()
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    if type(joint) is not type(model) or {n: v.shape for n, v in state.items()} != shapes:
        return False
    model.load_state_dict(state)
    return True

"""The half of a run that comes after its features: coefficients, affinity, clusters, figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ebsc_core.clustering import metrics
from ebsc_core.clustering.cluster import (
    Clustered,
    Method,
    OutOfSampleAssigner,
    cluster_best,
    rebuild_assigner,
)
from ebsc_core.clustering.coefficients import Dictionary
from ebsc_core.clustering.n_clusters import NumberOfClusters
from ebsc_core.clustering.spectral.eigenvectors import leading_eigenpairs
from ebsc_core.config.schema import RefineOptions
from ebsc_core.data.features.rows import Rows
from ebsc_core.plugins.interfaces import Clusterer, CoefficientModel, TrainableCoefficientModel
from ebsc_core.runs.plan import Plan
from ebsc_core.runs.resolve import ResolvedClusteringSettings
from ebsc_core.utils.device import device_memory
from ebsc_core.utils.progress import Progress, Stages

# Below this share of the largest coefficients, a search that is not exact is worth a warning.
MIN_RECALL = 0.9


@dataclass(frozen=True)
class Joint:
    """A coefficient model that has been trained along with the features."""

    model: TrainableCoefficientModel
    whiten: bool
    """Whether the rows were whitened then."""


@dataclass(frozen=True)
class ClusteringResult:
    """Rows that have been clustered."""

    method: Method
    """The parts as built and, where they can learn, trained; with all their resolved settings."""
    clustered: Clustered
    n_clusters: int
    """How many were asked for, or found to be there."""
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
        """The resolved settings, as the configuration has them."""
        method = self.method
        return {
            "n_clusters": self.n_clusters,
            "dictionary_size": method.dictionary_size,
            "top_k": method.top_k,
            "refine": method.refine.model_dump(mode="json"),
            "whiten": method.whiten,
        }


class ClusteringStage:
    """Builds what turns rows into clusters, and lets it."""

    def __init__(
        self,
        plan: Plan,
        resolved: ResolvedClusteringSettings,
        device: torch.device,
        stage: Stages,
        progress: Progress,
    ) -> None:
        self.plan, self.resolved, self.config = plan, resolved, plan.config
        self.device, self.stage, self.progress = device, stage, progress

    def run(self, rows: Rows, joint: Joint | None = None) -> ClusteringResult:
        """Cluster unit-length rows ``(N, D)``; the coefficient model goes on from ``joint`` if it is that."""
        whiten = self.resolved.whiten
        choices = (False, True) if whiten == "choose" else (whiten,)
        methods = [self.method(rows.width, choice, joint) for choice in choices]
        with device_memory(self.device) as held:
            method, shares, clustered = cluster_best(rows, methods, self.stage, self.progress)
            peak = held()
        within_by_whitening = None
        if whiten == "choose":
            within_by_whitening = dict(zip(("plain", "whitened"), shares, strict=True))
            self._note_whitening(method, clustered, within_by_whitening)
        self._note_n_clusters(clustered.number)
        n_clusters = clustered.number.chosen if clustered.number else self.resolved.n_clusters
        assert n_clusters is not None  # it is found where it is not resolved
        self._check_clusters(clustered, n_clusters)
        with self.stage("figures"):
            figures = self._figures(rows, clustered, n_clusters, within_by_whitening)
        figures["clustering_device_memory_mib"] = peak
        return ClusteringResult(method, clustered, n_clusters, figures)

    def method(self, width: int, whiten: bool, joint: Joint | None = None) -> Method:
        """The parts that turn rows of this width into clusters, and their resolved settings."""
        config, resolved = self.config, self.resolved
        model: CoefficientModel = self.plan.coefficients.build_seeded(config.seed, width)
        refinement = config.refine
        if isinstance(model, TrainableCoefficientModel):
            if joint is not None:
                self._start_from_joint(joint, model, whiten)
            model.to(self.device)
            refinement = RefineOptions(**(model.refinement() | config.refine.model_dump(exclude_unset=True)))

        def build(n_clusters: int) -> Clusterer:
            clusterer: Clusterer = self.plan.clusterer.build(n_clusters, config.seed)
            return clusterer

        return Method(
            model=model,
            # Built now in any case, so that its options are checked.
            clusterer=build(resolved.n_clusters or 2),
            recount=None if resolved.n_clusters else build,
            top_k=resolved.top_k,
            whiten=whiten,
            refine=refinement,
            search=config.search,
            affinity=config.affinity,
            dictionary_size=resolved.dictionary_size,
            seed=config.seed,
            device=self.device,
        )

    def rebuild_assigner(
        self, rows: Rows, clusters: np.ndarray, weights: Callable[[nn.Module], Mapping[str, Tensor]]
    ) -> OutOfSampleAssigner:
        """What new rows need to join clusters ``(N,)`` that were found of these rows before.

        Parameters
        ----------
        weights : callable
            Gives what the coefficient model had learned then, if it is one that learns.
        """
        assert isinstance(self.resolved.whiten, bool)  # as it was found then
        method = self.method(rows.width, self.resolved.whiten)
        if isinstance(method.model, nn.Module):
            method.model.load_state_dict(weights(method.model))
            method.model.eval()
        return rebuild_assigner(rows, method, clusters, self.stage)

    def _start_from_joint(self, joint: Joint, model: TrainableCoefficientModel, whiten: bool) -> None:
        """Start from the jointly trained weights if this is the same model, used to such rows."""
        name = self.plan.coefficients.name
        if joint.whiten != whiten:
            self.progress.note(f"{name} starts afresh: rows were whitened in one phase only")
        elif _copy_weights(joint.model, model):
            self.progress.note(f"{name} goes on from its joint training")

    def _note_whitening(
        self, method: Method, clustered: Clustered, within_by_whitening: dict[str, float]
    ) -> None:
        why = " and ".join(f"{share:.1%} {way}" for way, share in within_by_whitening.items())
        why = f"of the affinity, {why} stay within clusters"
        if clustered.number:
            why = "their number of clusters is the more stable"
        self.progress.note(f"{'whitened' if method.whiten else 'plain'} rows are chosen: {why}")

    def _note_n_clusters(self, number: NumberOfClusters | None) -> None:
        if number is None:
            return
        best, *others = (f"{c.k} ({c.stability:.2f})" for c in (number.candidates[0], *number.runners_up))
        after = f"; after it come {', '.join(others)}" if others else ""
        self.progress.note(f"number of clusters, with its stability: {best}{after}")
        for doubt in number.doubts():
            self.progress.warn(doubt)

    def _check_clusters(self, clustered: Clustered, n_clusters: int) -> None:
        self.pass_on_warnings(clustered.clusterer)
        count = len(np.unique(clustered.clusters[clustered.clusters >= 0]))
        # A clusterer that says so itself may say why.
        if count != n_clusters and not getattr(clustered.clusterer, "warnings_", []):
            self.progress.warn(f"{self.plan.clusterer.name} found {count} clusters, not {n_clusters}")

    def pass_on_warnings(self, part: CoefficientModel | Clusterer) -> None:
        """Tell the user what a part has to say."""
        for warning in getattr(part, "warnings_", []):
            self.progress.warn(warning)

    def _figures(
        self, rows: Rows, clustered: Clustered, n_clusters: int, within_by_whitening: dict[str, float] | None
    ) -> dict[str, Any]:
        seed, graph = self.config.seed, clustered.graph
        eigenvalues = getattr(clustered.clusterer, "eigenvalues_", None)
        if eigenvalues is None or len(eigenvalues) <= n_clusters:
            eigenvalues = leading_eigenpairs(graph, min(n_clusters + 1, graph.shape[0]), seed).values
        within = clustered.confidence[clustered.positions]
        label_free = metrics.label_free(
            rows, clustered.clusters, graph, within, eigenvalues, n_clusters, seed
        )
        if clustered.agreement is not None:
            label_free["dictionary_agreement"] = clustered.agreement
        return {
            "dictionary_size": self.resolved.dictionary_size,
            "n_clusters": clustered.number.record() if clustered.number else None,
            "within_by_whitening": within_by_whitening,
            "search": self._search(clustered.assigner.dictionary),
            "label_free": label_free,
            "eigenvalues": [round(float(value), 6) for value in eigenvalues],
        }

    def _search(self, dictionary: Dictionary) -> dict[str, Any]:
        """How coefficients were searched, and what share of the largest were found."""
        recall = dictionary.recall
        if recall is not None and recall < MIN_RECALL:
            self.progress.warn(
                f"the search found {recall:.0%} of the largest coefficients; raise search.probes, which is "
                f"{self.config.search.probes}, or use --set search.method=exact"
            )
        return {"method": dictionary.method, "recall": None if recall is None else round(recall, 4)}


def _copy_weights(joint: TrainableCoefficientModel, model: TrainableCoefficientModel) -> bool:
    """Copy the jointly trained weights if this is the same model; whether it was."""
    state = joint.state_dict()
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    if type(joint) is not type(model) or {n: v.shape for n, v in state.items()} != shapes:
        return False
    model.load_state_dict(state)
    return True

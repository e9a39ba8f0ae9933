"""Cluster features: build the components, let them work, report what they say, compute figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ebsc_core.clustering import metrics
from ebsc_core.clustering.cluster import (
    ClusteringResult,
    Method,
    OutOfSampleAssigner,
    cluster_rows,
    rebuild_assigner,
)
from ebsc_core.clustering.coefficients import Dictionary
from ebsc_core.clustering.comparison import SAMPLE, RivalComparison, compare_with_rivals
from ebsc_core.clustering.n_clusters import NumberOfClusters, clusters_to_embed
from ebsc_core.clustering.partition import partition
from ebsc_core.clustering.returned import checked_eigenvalues, preferred, sentences
from ebsc_core.clustering.spectral.eigenvectors import leading_eigenpairs
from ebsc_core.clustering.spectral.kmeans import kmeans
from ebsc_core.data.features.forms import ROW_FORMS, WhitenForm, form_width
from ebsc_core.data.features.rows import Rows
from ebsc_core.data.features.whitening import Whitening
from ebsc_core.plugins.interfaces import Clusterer, CoefficientModel, TrainableCoefficientModel
from ebsc_core.runs.plan import Plan
from ebsc_core.runs.resolve import ANY_NUMBER, ResolvedClusteringSettings
from ebsc_core.utils.device import device_memory
from ebsc_core.utils.progress import Progress, Stages
from ebsc_core.utils.sampling import sample_positions

# k-means only stands beside the clusters here; a start more does not change by how much it is better.
KMEANS_STARTS = 4
# A search that is not exact is worth a warning if it finds less than this share of the largest coefficients.
MIN_RECALL = 0.9


@dataclass(frozen=True)
class Joint:
    """Hold a coefficient model that was trained along with the features."""

    model: TrainableCoefficientModel
    whiten: WhitenForm
    """Whether and how the rows were whitened then."""


class ClusteringStage:
    """Build the components that turn rows into clusters, and run them."""

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

    def run(
        self,
        rows: Rows,
        joint: Joint | None = None,
        renumber: Callable[[ClusteringResult], ClusteringResult] | None = None,
    ) -> ClusteringResult:
        """Cluster unit-length rows ``(N, D)``, and compute the figures that need no class labels.

        If the coefficient model is the one in ``joint``, it starts from those weights. ``renumber`` gives the
        clusters other numbers.
        """
        with device_memory(self.device) as held:
            result = self._cluster(rows, self.resolved.whiten, joint)
            with self.stage("comparison"):
                comparison = self._compare(rows, result)
            if comparison and (form := self._better_form(comparison, result)) is not None:
                result, comparison = self._in_form(form, rows, joint, result, comparison)
            peak = held()
        if comparison:
            self._warn_of_better(comparison, result)
        self._note_n_clusters(result.number)
        self._check_clusters(result)
        if renumber:
            result = renumber(result)
        with self.stage("figures"):
            figures = self._figures(rows, result)
        figures["comparison"] = comparison.record() if comparison else None
        return replace(result, figures=figures | {"clustering_device_memory_mib": peak})

    def _cluster(self, rows: Rows, whiten: WhitenForm, joint: Joint | None) -> ClusteringResult:
        return cluster_rows(rows, self._method(rows.width, whiten, joint), self.stage, self.progress)

    def n_clusters(self, result: ClusteringResult) -> int:
        """Return the number of clusters that was given, or else found."""
        if result.number:
            return result.number.chosen
        return self.resolved.n_clusters or result.count

    def resolved_tables(self, result: ClusteringResult) -> dict[str, Any]:
        """Return the resolved settings as the configuration has them."""
        method = result.method
        return {
            # A clusterer that finds the number itself finds it again.
            "n_clusters": None if self.resolved.finds_number else self.n_clusters(result),
            "dictionary_size": method.dictionary_size,
            "top_k": method.top_k,
            "refine": method.refine.model_dump(mode="json"),
            "affinity": method.affinity.model_dump(mode="json"),
            "whiten": method.whiten,
        }

    def _method(self, width: int, whiten: WhitenForm, joint: Joint | None = None) -> Method:
        """Build the components that turn rows of this width into clusters."""
        config, resolved = self.config, self.resolved
        model: CoefficientModel = self.plan.coefficients.build_seeded(config.seed, form_width(width, whiten))
        refinement = config.refine
        if isinstance(model, TrainableCoefficientModel):
            if joint is not None:
                self._start_from_joint(joint, model, whiten)
            model.to(self.device)
            refinement = preferred(model, "refinement", config.refine)

        def build(n_clusters: int) -> Clusterer:
            clusterer: Clusterer = self.plan.clusterer.build(n_clusters, config.seed)
            return clusterer

        return Method(
            model=model,
            # Built now in any case: this checks its options.
            clusterer=build(resolved.n_clusters or ANY_NUMBER),
            n_clusters=resolved.n_clusters,
            recount=None if resolved.n_clusters or resolved.finds_number else build,
            top_k=resolved.top_k,
            whiten=whiten,
            refine=refinement,
            search=config.search,
            affinity=preferred(model, "graph", config.affinity),
            dictionary_size=resolved.dictionary_size,
            seed=config.seed,
            device=self.device,
        )

    def rebuild_assigner(
        self,
        rows: Rows,
        labels: np.ndarray,
        confidence: np.ndarray,
        weights: Callable[[nn.Module], Mapping[str, Tensor]],
    ) -> OutOfSampleAssigner:
        """Rebuild the assigner of a finished run.

        Parameters
        ----------
        rows : Rows
            All rows that were clustered.
        labels : ndarray of shape (N,)
            Their clusters.
        confidence : ndarray of shape (N,)
            Their confidence.
        weights : callable
            Returns the weights of the coefficient model, if it is one that learns.
        """
        method = self._method(rows.width, self.resolved.whiten)
        if isinstance(method.model, nn.Module):
            method.model.load_state_dict(weights(method.model))
            method.model.eval()
        return rebuild_assigner(rows, method, labels, confidence, self.stage)

    def _start_from_joint(self, joint: Joint, model: TrainableCoefficientModel, whiten: WhitenForm) -> None:
        """Start from the jointly trained weights if this is the same model on the same kind of rows."""
        name = self.plan.coefficients.name
        if joint.whiten != whiten:
            self.progress.note(f"{name} is built anew: in the joint phase, rows had another form")
        elif _copy_weights(joint.model, model):
            self.progress.note(f"{name} goes on from its joint training")

    def _note_n_clusters(self, number: NumberOfClusters | None) -> None:
        if number is None:
            return
        self.progress.note(number.said())
        for doubt in number.doubts():
            self.progress.warn(doubt)

    def _note_found(self, count: int) -> None:
        """Say how many clusters the clusterer has found itself; fewer than two tell nothing."""
        name = self.plan.clusterer.name
        if count > 1:
            self.progress.note(f"{name} found {count} clusters")
        else:
            clusters = "one cluster" if count else "no cluster"
            self.progress.warn(f"{name} found {clusters}; its options decide how many it finds")

    def _check_clusters(self, result: ClusteringResult) -> None:
        self.pass_on_warnings(result.clusterer)
        n_clusters, count, name = self.n_clusters(result), result.count, self.plan.clusterer.name
        if self.resolved.finds_number:
            self._note_found(count)
        # If the clusterer warns of it, it may give the reason, too.
        if count != n_clusters and not sentences(result.clusterer):
            different = len(result.copies.distinct) if result.copies else n_clusters
            why = f": only {different} rows differ" if different < n_clusters else ""
            self.progress.warn(f"{name} found {count} clusters, not {n_clusters}{why}")
        n_rows, none = len(result.labels), int((result.labels < 0).sum())
        if none:
            self.progress.warn(f"{none} of {n_rows} rows ({none / n_rows:.1%}) have no cluster (-1)")

    def _compare(
        self, rows: Rows, result: ClusteringResult, first: ClusteringResult | None = None
    ) -> RivalComparison | None:
        """Compare a sample of the rows with k-means and with the untrained model on other forms of them.

        If the rows were clustered before, the ``first`` result of them is one more rival.
        """
        assigned = np.flatnonzero((result.labels >= 0) & (first is None or first.labels >= 0))
        sample = assigned[sample_positions(len(assigned), SAMPLE, self.config.seed)]
        labels, k = result.labels[sample], self.n_clusters(result)
        if len(np.unique(labels)) < 2 or len(sample) < 2 * k:
            return None
        plain, seed = rows.take(sample), self.config.seed
        rivals = {"k-means": kmeans(plain.numpy(), k, KMEANS_STARTS, seed)}
        if first:
            rivals[self._given(first)] = first.labels[sample]
        for form in ROW_FORMS if isinstance(result.method.model, TrainableCoefficientModel) else ():
            if form != result.method.whiten or _learns(result.method):
                width = form_width(rows.width, form)
                untrained = self.plan.coefficients.build_seeded(seed, width).to(self.device).eval()
                its = partition(plain.to(self.device), untrained, k, form, seed).clusters
                assert its is not None
                rivals[self._untrained(form)] = its.numpy()
        return compare_with_rivals([plain.numpy(), Whitening(plain)(plain).numpy()], labels, rivals)

    def _given(self, result: ClusteringResult) -> str:
        return f"{self.plan.coefficients.name} on {ROW_FORMS[result.method.whiten]} rows, as first clustered"

    def _untrained(self, form: WhitenForm) -> str:
        return f"the untrained {self.plan.coefficients.name} on {ROW_FORMS[form]} rows"

    def _better_form(self, comparison: RivalComparison, result: ClusteringResult) -> WhitenForm | None:
        """Return the form of rows that the run takes instead of its model's preference, if there is one.

        On this form the untrained model is a better rival. It is the model of the run, unless that learns
        from the rows.
        """
        fixed = self.config.whiten != "auto" or result.clusterer.consumes == "features"
        if fixed or _learns(result.method):
            return None
        forms = {self._untrained(form): form for form in ROW_FORMS}
        better = comparison.better_among(forms)
        return forms[better.name] if better else None

    def _in_form(
        self,
        form: WhitenForm,
        rows: Rows,
        joint: Joint | None,
        first: ClusteringResult,
        comparison: RivalComparison,
    ) -> tuple[ClusteringResult, RivalComparison]:
        """Cluster the rows in another form; return the first result if it keeps more neighbours together."""
        result = self._cluster(rows, form, joint)
        with self.stage("comparison"):
            other = self._compare(rows, result, first)
        # How many neighbours count depends on the clusters, so both results are judged by one comparison.
        if other is None or other.neighbors_kept <= (before := other.kept(self._given(first))):
            return first, comparison
        self.progress.note(
            f"{ROW_FORMS[form]} rows are taken: their clusters keep {other.neighbors_kept:.0%} of the "
            f"nearest neighbours together (beyond chance), those of {ROW_FORMS[first.method.whiten]} rows "
            f"{max(0, before):.0%}"
        )
        return result, other

    def _warn_of_better(self, comparison: RivalComparison, result: ClusteringResult) -> None:
        if not (better := comparison.better):
            return
        method = result.method
        if result.clusterer.consumes == "features":
            tries = ["another `clusterer.name`"]
        else:
            forms = isinstance(method.model, TrainableCoefficientModel) or method.whiten
            tries = ["another `coefficients.name`"]
            tries += ["another `whiten`"] if forms else []
            tries += ["`refine.steps=0`"] if _learns(method) else []
        self.progress.warn(
            f"{better.name} keeps {better.neighbors_kept:.0%} of the nearest neighbours together (beyond "
            f"chance), these clusters {max(0, comparison.neighbors_kept):.0%}; the two agree to an ARI of "
            f"{better.agreement:.2f}; try {' or '.join(tries)}"
        )

    def pass_on_warnings(self, component: CoefficientModel | Clusterer) -> None:
        """Tell the user what a component has to say."""
        for warning in sentences(component):
            self.progress.warn(warning)

    def _figures(self, rows: Rows, result: ClusteringResult) -> dict[str, Any]:
        seed, graph, n_clusters = self.config.seed, result.affinity, self.n_clusters(result)
        eigenvalues = checked_eigenvalues(result.clusterer)
        most = clusters_to_embed(n_clusters, self.resolved.n_clusters)
        if len(eigenvalues) <= most:
            eigenvalues = leading_eigenpairs(graph, min(most + 1, graph.shape[0]), seed).values
        label_free = metrics.label_free(
            rows, result.labels, graph, result.within, eigenvalues, n_clusters, seed
        )
        if result.agreement is not None:
            label_free["dictionary_agreement"] = result.agreement
        return {
            "dictionary_size": self.resolved.dictionary_size,
            "n_clusters": result.number.record() if result.number else None,
            "copies": result.copies.count if result.copies else 0,
            "search": self._search(result.assigner.dictionary),
            "label_free": label_free,
            "eigenvalues": [round(float(value), 6) for value in eigenvalues],
        }

    def _search(self, dictionary: Dictionary) -> dict[str, Any]:
        """Return how coefficients were searched, and what share of the largest was found."""
        recall = dictionary.recall
        if recall is not None and recall < MIN_RECALL:
            self.progress.warn(
                f"the search found {recall:.0%} of the largest coefficients; raise search.probes, which is "
                f"{dictionary.probes}, or use `search.method=exact`"
            )
        return {"method": dictionary.method, "recall": None if recall is None else round(recall, 4)}


def _copy_weights(joint: TrainableCoefficientModel, model: TrainableCoefficientModel) -> bool:
    """Copy the jointly trained weights if this is the same model; return whether it is."""
    state = joint.state_dict()
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    if type(joint) is not type(model) or {n: v.shape for n, v in state.items()} != shapes:
        return False
    model.load_state_dict(state)
    return True


def _learns(method: Method) -> bool:
    """Return whether the coefficient model learns from the rows."""
    return isinstance(method.model, TrainableCoefficientModel) and method.refine.steps > 0

"""Cluster rows of features in memory, and assign later rows to the clusters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ebsc_core.clustering.cluster import OutOfSampleAssigner
from ebsc_core.config.loading import checked
from ebsc_core.config.schema import RunConfig
from ebsc_core.curation.duplicates import Duplicates, duplicate_rows
from ebsc_core.curation.graph import Graph
from ebsc_core.curation.outliers import Outlier, rank_outliers
from ebsc_core.curation.similar import similar_rows
from ebsc_core.data.features.rows import HeldRows, doubt_of_zeros, unit_rows
from ebsc_core.data.features.source import Positions
from ebsc_core.estimators.torch_state import apart
from ebsc_core.plugins.registry import Registry
from ebsc_core.runs.clustering_stage import ClusteringStage
from ebsc_core.runs.plan import make_plan
from ebsc_core.runs.resolve import InputSummary, Preferences, resolve_clustering
from ebsc_core.utils.device import prepare, resolve_device
from ebsc_core.utils.progress import Progress, Stages


class ClusteredRows:
    """Run the second half of a run, without a directory. A pickle holds rows, weights and plain values.

    Parameters
    ----------
    rows : ndarray of shape (N, D)
        float32; not changed.
    config : RunConfig
        A configuration with ``features`` of any name.

    Raises
    ------
    EbscError
        For the same reasons as a run.
    """

    def __init__(self, rows: np.ndarray, config: RunConfig, progress: Progress) -> None:
        self.tables = config.model_dump(mode="json", exclude_unset=True)
        device = resolve_device(config.device)
        with apart(device):
            self.rows = _unit(rows)
            prepare(device)
            plan = make_plan(config, Registry())
            for line in plan.warnings():
                progress.warn(line)
            resolved = resolve_clustering(
                config, InputSummary("X", len(rows), None, "rows"), Preferences.of(plan)
            )
            if zeros := int((~rows.any(axis=1)).sum()):
                progress.warn(doubt_of_zeros(zeros, len(rows)))
            clustering = ClusteringStage(plan, resolved, device, Stages(), progress)
            result = clustering.run(HeldRows(self.rows))
            model = result.method.model
            clustering.pass_on_warnings(model)
        n_clusters = clustering.n_clusters(result)
        self.resolved = replace(resolved, n_clusters=n_clusters, whiten=result.method.whiten)
        self.weights: dict[str, Tensor] = {}
        if isinstance(model, nn.Module):
            self.weights = {name: value.cpu() for name, value in model.state_dict().items()}
        self.labels, self.confidence = result.labels, result.confidence
        self.affinity, self.positions = result.affinity, result.positions
        self.figures: dict[str, Any] = result.figures
        self._assigner: OutOfSampleAssigner | None = result.assigner

    @property
    def graph(self) -> Graph:
        """The affinity, with the positions and clusters of its rows."""
        return Graph(self.affinity, self.positions, self.labels[self.positions])

    def predict(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the clusters ``(M,)`` and the confidence ``(M,)`` of other rows ``(M, D)``."""
        with self._opened() as (config, device):
            if self._assigner is None:
                self._assigner = self._rebuild_assigner(config, device)
            return self._assigner.predict(HeldRows(_unit(rows)))

    def find_duplicates(self, threshold: float | None) -> Duplicates:
        """Find groups of equal and nearly equal rows."""
        rows, names = HeldRows(self.rows), Positions(len(self.rows))
        with self._opened() as (config, _):
            return duplicate_rows(rows, names, threshold, config.search, config.seed)

    def find_outliers(self, top: int) -> list[Outlier]:
        """Rank the rows that belong least to the others."""
        rows, names = HeldRows(self.rows), Positions(len(self.rows))
        with self._opened() as (config, _):
            return rank_outliers(rows, names, self.labels, self.graph, top, config.search, config.seed)

    def find_similar(self, row: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the rows with the largest cosines to a row ``(1, D)``."""
        with self._opened():
            return similar_rows(HeldRows(self.rows), _unit(row)[0], top)

    @contextmanager
    def _opened(self) -> Iterator[tuple[RunConfig, torch.device]]:
        """Compute on the device, independent of what the caller has switched on in torch."""
        config = checked(self.tables)
        device = resolve_device(config.device)
        with apart(device):
            prepare(device)
            yield config, device

    def _rebuild_assigner(self, config: RunConfig, device: torch.device) -> OutOfSampleAssigner:
        plan = make_plan(config, Registry())
        clustering = ClusteringStage(plan, self.resolved, device, Stages(), Progress())
        rows, weights = HeldRows(self.rows), lambda model: self.weights
        return clustering.rebuild_assigner(rows, self.labels, self.confidence, weights)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_assigner": None}


def _unit(rows: np.ndarray) -> Tensor:
    """Copy rows and scale them to unit length; rows of zeros stay zero."""
    own = torch.tensor(np.ascontiguousarray(rows))  # torch does not support negative strides
    return unit_rows(own, in_place=True)

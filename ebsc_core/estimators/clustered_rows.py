"""Cluster rows of features in memory, and assign later rows to the clusters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ebsc_core.clustering.assign import Assigned
from ebsc_core.clustering.cluster import Joining
from ebsc_core.config.loading import checked
from ebsc_core.config.schema import RunConfig
from ebsc_core.data.features.rows import HeldRows
from ebsc_core.estimators.torch_state import apart
from ebsc_core.plugins.registry import Registry
from ebsc_core.runs.clustering_stage import Cutter
from ebsc_core.runs.plan import make_plan
from ebsc_core.runs.resolve import Given, Preferences, settle_cut
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
        self.rows = _unit(rows)
        device = resolve_device(config.device)
        with apart(device):
            prepare(device)
            plan = make_plan(config, Registry())
            settled = settle_cut(config, Given("X", len(rows), None, "rows"), Preferences.of(plan))
            cutter = Cutter(plan, settled, device, Stages(), progress)
            cut = cutter.cut(HeldRows(self.rows))
            cutter.pass_on_warnings(cut.model)
        self.settled = replace(settled, n_clusters=cut.n_clusters, whiten=cut.method.whiten)
        self.weights: dict[str, Tensor] = {}
        if isinstance(cut.model, nn.Module):
            self.weights = {name: value.cpu() for name, value in cut.model.state_dict().items()}
        self.found = Assigned(cut.found.clusters, cut.found.confidence)
        self.affinity, self.chosen = cut.found.graph, cut.found.chosen
        self.figures: dict[str, Any] = cut.figures
        self._joining: Joining | None = cut.found.joining

    def assign(self, rows: np.ndarray) -> Assigned:
        """Return clusters and confidence of other rows ``(M, D)``."""
        config = checked(self.tables)
        device = resolve_device(config.device)
        with apart(device):
            prepare(device)
            if self._joining is None:
                self._joining = self._restored(config, device)
            return self._joining.assign(HeldRows(_unit(rows)))

    def _restored(self, config: RunConfig, device: torch.device) -> Joining:
        cutter = Cutter(make_plan(config, Registry()), self.settled, device, Stages(), Progress())
        return cutter.joining(HeldRows(self.rows), self.found.clusters, lambda model: self.weights)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_joining": None}


def _unit(rows: np.ndarray) -> Tensor:
    """Copy rows and scale them to unit length; rows of zeros stay zero."""
    own = torch.tensor(np.ascontiguousarray(rows))  # torch does not support negative strides
    return F.normalize(own, dim=1, out=own)

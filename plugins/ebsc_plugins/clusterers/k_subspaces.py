"""k-subspaces: alternate between assigning rows to subspaces and fitting the subspaces."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from scipy import sparse
from torch import Tensor

from ebsc_core.errors import ConfigError
from ebsc_core.interfaces import Clusterer
from ebsc_core.options import Options

# Projections held at once: 2^25 float32 are 128 MiB.
BLOCK_PROJECTIONS = 1 << 25


class KSubspacesOptions(Options):
    """Options of k-subspaces."""

    dimension: int = Field(9, ge=1)
    """Dimension of every subspace; 9 is what light does to a convex face (Basri and Jacobs 2003)."""
    restarts: int = Field(16, ge=1)
    """Random starts, run side by side; the one that captures most is kept."""
    max_rounds: int = Field(100, ge=1)
    """Rounds at most; a round assigns all rows and moves all subspaces."""


class KSubspaces(Clusterer):
    """Linear subspaces through the origin (Bradley and Mangasarian 2000; Tseng 2000), all restarts batched.

    A row belongs to the subspace that captures most of its squared length. Each round moves every subspace by
    steps of orthogonal iteration on its rows, warm-started from itself: this never lowers the captured length
    and costs two matrix products where a PCA of each cluster would cost a decomposition.
    """

    Options = KSubspacesOptions
    consumes: ClassVar[Literal["features"]] = "features"

    def __init__(self, options: KSubspacesOptions, n_clusters: int, seed: int) -> None:
        self.options, self.n_clusters, self.seed = options, n_clusters, seed

    @torch.no_grad()
    def fit_predict(self, data: sparse.csr_matrix | np.ndarray) -> np.ndarray:
        """Labels ``(N,)``; sets ``captured_``, the mean share of squared length captured."""
        assert isinstance(data, np.ndarray)
        rows = torch.as_tensor(data, dtype=torch.float32)
        n, width = rows.shape
        dimension = self.options.dimension
        if dimension >= width:
            raise ConfigError(
                f"clusterer.dimension is {dimension} but the rows have only {width} entries; choose less"
            )
        generator = torch.Generator().manual_seed(self.seed)
        bases = self._starts(rows, generator)
        labels = torch.full((self.options.restarts, n), -1)
        for _ in range(self.options.max_rounds):
            assigned, captured = _assign(rows, bases)
            if torch.equal(assigned, labels):
                break
            labels = _fill_empty(assigned, captured, self.n_clusters)
            bases = _move(rows, bases, labels)
        labels, captured = _assign(rows, bases)
        labels = _fill_empty(labels, captured, self.n_clusters)
        means = captured.mean(dim=1)
        best = int(means.argmax())
        self.captured_ = float(means[best])
        return labels[best].numpy()

    def _starts(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """``(R, K, D, d)``: the principal subspace of the rows nearest to each of K random rows."""
        r, k, d = self.options.restarts, self.n_clusters, self.options.dimension
        neighbours = min(len(rows), 2 * d)
        starts = []
        for _ in range(r):
            seeds = rows[torch.randperm(len(rows), generator=generator)[:k]]
            nearest = (seeds @ rows.T).abs().topk(neighbours, dim=1).indices
            noise = 1e-3 * torch.randn(k, rows.shape[1], d, generator=generator)
            around = rows[nearest].transpose(1, 2)
            left = torch.linalg.svd(around, full_matrices=False).U[..., :d]
            noise[..., : left.shape[-1]] += left
            starts.append(torch.linalg.qr(noise).Q)
        return torch.stack(starts)


def _blocks(rows: Tensor, bases: Tensor) -> range:
    per_row = bases.shape[0] * bases.shape[1] * bases.shape[3]
    return range(0, len(rows), max(256, BLOCK_PROJECTIONS // per_row))


def _project(rows: Tensor, bases: Tensor) -> Tensor:
    """``(n, R, K, d)`` coordinates of every row in every subspace."""
    r, k, width, d = bases.shape
    flat = bases.permute(2, 0, 1, 3).reshape(width, r * k * d)
    return (rows @ flat).view(len(rows), r, k, d)


def _assign(rows: Tensor, bases: Tensor) -> tuple[Tensor, Tensor]:
    """Labels ``(R, N)`` and captured squared length ``(R, N)``."""
    blocks = _blocks(rows, bases)
    parts = [
        _project(rows[start : start + blocks.step], bases).square().sum(dim=3).max(dim=2) for start in blocks
    ]
    labels = torch.cat([part.indices for part in parts]).T
    return labels, torch.cat([part.values for part in parts]).T


def _fill_empty(labels: Tensor, captured: Tensor, n_clusters: int) -> Tensor:
    """Give every empty cluster the row its subspaces explain worst, so that K clusters remain."""
    labels = labels.clone()
    for restart in range(len(labels)):
        counts = torch.bincount(labels[restart], minlength=n_clusters)
        worst = iter(captured[restart].argsort().tolist())
        for empty in (counts == 0).nonzero().squeeze(1).tolist():
            row = next(i for i in worst if counts[labels[restart, i]] > 1)
            counts[labels[restart, row]] -= 1
            counts[empty] += 1
            labels[restart, row] = empty
    return labels


def _move(rows: Tensor, bases: Tensor, labels: Tensor, steps: int = 2) -> Tensor:
    """Orthogonal iteration: ``U ← orth(X_kᵀ X_k U)`` for every cluster of every restart."""
    r, k, width, d = bases.shape
    for _ in range(steps):
        blocks = _blocks(rows, bases)
        moved = torch.zeros(width, r * k * d)
        for start in blocks:
            part = rows[start : start + blocks.step]
            own = torch.nn.functional.one_hot(labels[:, start : start + blocks.step].T, k)
            coordinates = _project(part, bases) * own.unsqueeze(3)
            moved += part.T @ coordinates.view(len(part), r * k * d)
        moved = moved.view(width, r, k, d).permute(1, 2, 0, 3)
        # A cluster of fewer than d rows leaves directions free; what the basis had there stays.
        bases = torch.linalg.qr(moved + 1e-6 * bases).Q
    return bases

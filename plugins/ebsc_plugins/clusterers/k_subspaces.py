"""Cluster by k-subspaces: alternate between assigning rows to subspaces and fitting the subspaces."""

from __future__ import annotations

from itertools import cycle
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ebsc_core import Clusterer, ConfigError, HeldRows, Options, Rows

# Up to so many rows every round goes through all of them; the restarts start on no more.
ALL_AT_ONCE = 50_000
# Of more, so many are drawn for the mini-batches: batches of rows as they are stored may be of one class.
DRAWN = 1 << 18
BATCH, BATCH_PER_CLUSTER = 8192, 64
# After so many batches the worse half of the restarts ends, or the last.
STEPS = 24
# Share of a mini-batch in what a subspace has learned, at least.
SLOWEST = 0.2
# A pass over all rows that captures less than this share more is the last.
GAIN = 1e-5
MAX_PASSES = 10
# Projections held at once: 2^25 float32 are 128 MiB.
BLOCK_PROJECTIONS = 1 << 25


class KSubspacesOptions(Options):
    """Configure k-subspaces."""

    dimension: int = Field(9, ge=1)
    """The dimension of every subspace. Images of a convex face under varying light have dimension 9 (Basri
    and Jacobs 2003)."""
    restarts: int = Field(16, ge=1)
    """The number of random starts, which run in parallel. The result is the start that captures most."""
    max_rounds: int = Field(100, ge=1)
    """The maximum number of rounds. A round assigns all rows and moves all subspaces. More than 50,000 rows
    are read in mini-batches instead, a fixed number of times at most."""


class KSubspaces(Clusterer):
    """Fit linear subspaces through the origin (Bradley and Mangasarian 2000; Tseng 2000).

    A row belongs to the subspace that captures most of its squared length. Each round moves every subspace
    by steps of orthogonal iteration on its rows, warm-started from itself. This never lowers the captured
    length. It costs two matrix products, while a PCA of each cluster would cost a decomposition. All
    restarts run as one batch.

    More than 50,000 rows need not fit in memory: the restarts use mini-batches of a sample. After every few
    mini-batches the worse half of the restarts is dropped. The last restart goes through all rows a few
    times.
    """

    Options = KSubspacesOptions
    consumes: ClassVar[Literal["features"]] = "features"
    streams: ClassVar[bool] = True

    def __init__(self, options: KSubspacesOptions, n_clusters: int, seed: int) -> None:
        self.options, self.n_clusters, self.seed = options, n_clusters, seed

    @torch.no_grad()
    def fit_predict(self, data: Rows | np.ndarray) -> np.ndarray:
        """Return labels ``(N,)``, and set ``captured_`` to the mean captured share of squared length."""
        rows = data if isinstance(data, Rows) else HeldRows(torch.as_tensor(data, dtype=torch.float32))
        dimension = self.options.dimension
        if dimension >= rows.width:
            raise ConfigError(
                f"clusterer.dimension is {dimension} but the rows have only {rows.width} entries; lower it"
            )
        generator = torch.Generator().manual_seed(self.seed)
        if len(rows) <= ALL_AT_ONCE:
            labels, captured = self._rounds(rows.held(), generator)
        else:
            labels, captured = self._passes(rows, self._mini_batches(rows, generator))
        labels = _fill_empty(labels, captured, self.n_clusters)
        means = captured.mean(dim=1)
        best = int(means.argmax())
        self.captured_ = float(means[best])
        return labels[best].numpy()

    def _rounds(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return labels and captured squared length ``(R, N)`` after rounds over all rows."""
        bases = self._starts(rows, generator)
        labels = torch.full((self.options.restarts, len(rows)), -1)
        for _ in range(self.options.max_rounds):
            assigned, captured = _assign(rows, bases)
            if torch.equal(assigned, labels):
                break
            labels = _fill_empty(assigned, captured, self.n_clusters)
            bases = _move(rows, bases, labels)
        return _assign(rows, bases)

    def _mini_batches(self, rows: Rows, generator: torch.Generator) -> Tensor:
        """Return the restart ``(1, K, D, d)`` that captures most after mini-batches of a sample."""
        drawn = torch.randperm(len(rows), generator=generator)[:DRAWN]
        sample = rows.take(drawn.numpy())
        bases = self._starts(sample[:ALL_AT_ONCE], generator)
        scatter = bases.new_zeros(*bases.shape[:2], bases.shape[3], bases.shape[3])
        # Equal ones: in a short last one, most clusters would be empty and start again from single rows.
        size = max(BATCH, BATCH_PER_CLUSTER * self.n_clusters)
        batches = cycle(sample.tensor_split(-(-len(sample) // size)))
        for step in range(1, STEPS * self.options.restarts.bit_length() + 1):
            bases, scatter = _learn(next(batches), bases, scatter, max(1 / step, SLOWEST))
            if step % STEPS == 0 and len(bases) > 1:
                captured = _assign(sample[:ALL_AT_ONCE], bases)[1].mean(dim=1)
                kept = captured.argsort(descending=True)[: len(bases) // 2]
                bases, scatter = bases[kept], scatter[kept]
        return bases

    def _passes(self, rows: Rows, bases: Tensor) -> tuple[Tensor, Tensor]:
        """Return labels and captured squared length ``(1, N)`` after passes over all rows in blocks."""
        labels, captured = torch.empty(1, len(rows), dtype=torch.int64), torch.empty(1, len(rows))
        now = 0.0
        for _ in range(MAX_PASSES):
            moment = torch.zeros_like(bases)
            for start, block in rows.blocks():
                here = slice(start, start + len(block))
                labels[:, here], captured[:, here] = _assign(block, bases)
                moment += _moment(block, bases, labels[:, here])
            before, now = now, float(captured.mean())
            if now <= before * (1 + GAIN):
                break
            bases = _orthonormal(moment, bases)
        return labels, captured

    def _starts(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Compute principal subspaces ``(R, K, D, d)`` of the rows nearest to each of K random rows."""
        r, k, d = self.options.restarts, self.n_clusters, self.options.dimension
        neighbors = min(len(rows), 2 * d)
        starts = []
        for _ in range(r):
            seeds = rows[torch.randperm(len(rows), generator=generator)[:k]]
            nearest = (seeds @ rows.T).abs().topk(neighbors, dim=1).indices
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
    """Compute the coordinates ``(n, R, K, d)`` of every row in every subspace."""
    r, k, width, d = bases.shape
    flat = bases.permute(2, 0, 1, 3).reshape(width, r * k * d)
    return (rows @ flat).view(len(rows), r, k, d)


def _assign(rows: Tensor, bases: Tensor) -> tuple[Tensor, Tensor]:
    """Compute labels ``(R, N)`` and captured squared length ``(R, N)``."""
    blocks = _blocks(rows, bases)
    parts = [
        _project(rows[start : start + blocks.step], bases).square().sum(dim=3).max(dim=2) for start in blocks
    ]
    labels = torch.cat([part.indices for part in parts]).T
    return labels, torch.cat([part.values for part in parts]).T


def _fill_empty(labels: Tensor, captured: Tensor, n_clusters: int) -> Tensor:
    """Give every empty cluster the row that its own subspace explains worst, so that K clusters remain."""
    labels = labels.clone()
    for restart in range(len(labels)):
        counts = torch.bincount(labels[restart], minlength=n_clusters)
        if bool((counts > 0).all()):
            continue
        worst = iter(captured[restart].argsort().tolist())
        for empty in (counts == 0).nonzero().squeeze(1).tolist():
            row = next(i for i in worst if counts[labels[restart, i]] > 1)
            counts[labels[restart, row]] -= 1
            counts[empty] += 1
            labels[restart, row] = empty
    return labels


def _move(rows: Tensor, bases: Tensor, labels: Tensor) -> Tensor:
    """Move subspaces by two steps of orthogonal iteration, ``U ← orth(X_kᵀ X_k U)``, in every restart."""
    for _ in range(2):
        bases = _orthonormal(_moment(rows, bases, labels), bases)
    return bases


def _moment(rows: Tensor, bases: Tensor, labels: Tensor) -> Tensor:
    """Compute ``X_kᵀ X_k U``, ``(R, K, D, d)``, for every cluster and restart."""
    r, k, width, d = bases.shape
    blocks = _blocks(rows, bases)
    moment = torch.zeros(width, r * k * d)
    for start in blocks:
        part = rows[start : start + blocks.step]
        own = torch.nn.functional.one_hot(labels[:, start : start + blocks.step].T, k)
        coordinates = _project(part, bases) * own.unsqueeze(3)
        moment += part.T @ coordinates.view(len(part), r * k * d)
    return moment.view(width, r, k, d).permute(1, 2, 0, 3)


def _orthonormal(moment: Tensor, bases: Tensor) -> Tensor:
    # A cluster of fewer than d rows leaves directions free; what the basis had there stays.
    return torch.linalg.qr(moment + 1e-6 * bases).Q


def _counts(labels: Tensor, k: int) -> Tensor:
    """Count the rows of each cluster ``(R, K)``, from labels ``(R, N)`` of each restart."""
    return labels.new_zeros(len(labels), k).scatter_add_(1, labels, torch.ones_like(labels))


def _learn(batch: Tensor, bases: Tensor, scatter: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    """Update the subspaces of every restart, and the scatter within each, with a mini-batch.

    A cluster keeps of its earlier batches only their scatter ``Λ (d, d)`` within its subspace U. The
    subspace moves by orthogonal iteration on ``(1 - ρ) U Λ Uᵀ + ρ X_kᵀ X_k / n_k`` (history PCA; Yang,
    Hsieh and Wang, arXiv:1802.05447).
    """
    labels, captured = _assign(batch, bases)
    k = bases.shape[1]
    empty = _counts(labels, k) == 0
    labels = _fill_empty(labels, captured, k)
    counts = _counts(labels, k)[..., None, None]
    # A subspace that nothing belonged to starts again, from the row it was given.
    rates = torch.where(empty, 1.0, rate)[..., None, None]
    moment = _moment(batch, bases, labels) / counts
    within = (1 - rates) * scatter + rates * (bases.mT @ moment)
    moved = _orthonormal((1 - rates) * (bases @ scatter) + rates * moment, bases)
    turned = moved.mT @ bases
    return moved, turned @ within @ turned.mT

"""Assign rows that were not clustered to the clusters, by their coefficients (out-of-sample assignment)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ebsc_core.clustering.coefficients import Dictionary
from ebsc_core.data.features.rows import Rows
from ebsc_core.plugins.interfaces import Coefficients

# Number of votes counted at once: 2^23 float64 are 64 MiB.
HELD_VOTES = 1 << 23


@dataclass(frozen=True)
class Shares:
    """Hold how ``B`` new rows are shared among the clusters."""

    labels: np.ndarray
    """The cluster of each row, ``(B,)`` int64; -1 for none."""
    confidence: np.ndarray
    """``(B,)``, as :func:`vote` has it."""
    clusters: np.ndarray
    """The clusters with the largest shares of a row's coefficients, ``(B, top)`` int64; -1 where there are
    no more."""
    shares: np.ndarray
    """Their shares, ``(B, top)``, in descending order."""


def assign(
    rows: Rows, dictionary: Dictionary, labels: np.ndarray, trust: np.ndarray, top_k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Assign each new row to the cluster that gets most of its coefficients, in one pass over the rows.

    Parameters
    ----------
    rows : Rows
        ``N`` new rows of unit length, on the dictionary's device.
    dictionary : Dictionary
        The dictionary of the ``M`` rows that were clustered.
    labels : ndarray of shape (M,)
        The clusters of these rows; -1 for noise, which has no vote.
    trust : ndarray of shape (M,)
        The confidence of these rows, by which they count in the confidence of new rows.
    """
    assigned, confidence = np.empty(len(rows), np.int64), np.empty(len(rows))
    for start, block in rows.blocks():
        new = torch.full((len(block),), -1, device=block.device)
        block_range = slice(start, start + len(block))
        coefficients = dictionary.express(block, top_k, new)
        assigned[block_range], confidence[block_range] = vote(coefficients, labels, trust)
    return assigned, confidence


def vote(coefficients: Coefficients, labels: np.ndarray, trust: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find for each query the cluster with the largest sum of absolute coefficients, and its confidence.

    The confidence is the share of the coefficients that goes to this cluster, where each row counts by its
    ``trust`` in [0, 1]. The trust does not decide the cluster.
    """
    k = int(labels.max(initial=0)) + 1
    size = max(1, HELD_VOTES // k)
    blocks = zip(coefficients.indices.split(size), coefficients.values.split(size), strict=True)
    parts = [
        _vote(labels[indices.numpy()], trust[indices.numpy()], values.abs().numpy(), k)
        for indices, values in blocks
    ]
    winners, shares = zip(*parts, strict=True)
    return np.concatenate(winners), np.concatenate(shares)


def assign_shares(
    rows: Rows, dictionary: Dictionary, labels: np.ndarray, trust: np.ndarray, top_k: int, top: int
) -> Shares:
    """Assign each new row as :func:`assign` does, and share it among the ``top`` clusters with most votes."""
    parts = []
    for _, block in rows.blocks():
        new = torch.full((len(block),), -1, device=block.device)
        coefficients = dictionary.express(block, top_k, new)
        parts.append(Shares(*vote(coefficients, labels, trust), *ranked(coefficients, labels, top)))
    columns = zip(*((one.labels, one.confidence, one.clusters, one.shares) for one in parts), strict=True)
    return Shares(*map(np.concatenate, columns))


def ranked(coefficients: Coefficients, labels: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Find for each query the clusters with the largest sums of absolute coefficients, and their shares.

    Returns
    -------
    clusters : ndarray of shape (B, top), int64
        -1 where no more clusters have a share.
    shares : ndarray of shape (B, top)
        In descending order; 0 where there is no cluster.
    """
    k = int(labels.max(initial=0)) + 1
    size = max(1, HELD_VOTES // k)
    blocks = zip(coefficients.indices.split(size), coefficients.values.split(size), strict=True)
    parts = [_ranked(labels[indices.numpy()], values.abs().numpy(), k, top) for indices, values in blocks]
    clusters, shares = zip(*parts, strict=True)
    return np.concatenate(clusters), np.concatenate(shares)


def _ranked(voted: np.ndarray, weights: np.ndarray, k: int, top: int) -> tuple[np.ndarray, np.ndarray]:
    votes, n = _votes(voted, weights, k), len(voted)
    order = np.argsort(-votes, axis=1, kind="stable")[:, :top]
    sums = np.take_along_axis(votes, order, axis=1)
    total = weights.sum(axis=1, dtype=np.float64, keepdims=True)
    clusters, shares = np.full((n, top), -1), np.zeros((n, top))
    clusters[:, : order.shape[1]] = np.where(sums > 0, order, -1)
    np.divide(sums, total, out=shares[:, : order.shape[1]], where=total > 0)
    return clusters, shares


def _votes(voted: np.ndarray, weights: np.ndarray, k: int) -> np.ndarray:
    """Sum the weights of each query by the clusters that they go to, ``(B, k)``."""
    n, named = len(voted), voted >= 0
    places = np.arange(n)[:, None] * k + voted
    return np.bincount(places[named], weights[named], minlength=n * k).reshape(n, k)


def _vote(voted: np.ndarray, trust: np.ndarray, weights: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    n, votes = len(voted), _votes(voted, weights, k)
    best, winner = votes.max(axis=1), votes.argmax(axis=1)
    total = weights.sum(axis=1, dtype=np.float64)
    trusted = (weights * trust * (voted == winner[:, None])).sum(axis=1, dtype=np.float64)
    share = np.divide(trusted, total, out=np.zeros(n), where=total > 0)
    return np.where(best > 0, winner, -1).astype(np.int64), share

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

    confidence: np.ndarray
    """``(B,)``: the share of a row's coefficients that goes to its cluster, where each row there counts by
    its trust."""
    clusters: np.ndarray
    """The clusters with the largest shares of a row's coefficients, ``(B, top)`` int64; -1 where there are
    no more."""
    shares: np.ndarray
    """Their shares, ``(B, top)``, in descending order; 0 where there is no cluster."""

    @property
    def labels(self) -> np.ndarray:
        """The cluster of each row, ``(B,)`` int64; -1 for none."""
        return self.clusters[:, 0]


def assign(
    rows: Rows, dictionary: Dictionary, labels: np.ndarray, trust: np.ndarray, top_k: int, top: int = 1
) -> Shares:
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
    top_k : int
        The number of coefficients of each row.
    top : int
        The number of clusters that each row is shared among.
    """
    found = _empty(len(rows), top)
    for start, block in rows.blocks():
        new = torch.full((len(block),), -1, device=block.device)
        _write(found, start, vote(dictionary.express(block, top_k, new), labels, trust, top))
    return found


def vote(coefficients: Coefficients, labels: np.ndarray, trust: np.ndarray, top: int = 1) -> Shares:
    """Find for each query the clusters with the largest sums of absolute coefficients, and its confidence.

    The confidence is the share of the coefficients that goes to the first of these clusters, where each row
    counts by its ``trust`` in [0, 1]. The trust does not decide the cluster.
    """
    k = int(labels.max(initial=0)) + 1
    size = max(1, HELD_VOTES // k)
    found = _empty(len(coefficients.indices), top)
    blocks = zip(coefficients.indices.split(size), coefficients.values.split(size), strict=True)
    for block, (indices, values) in enumerate(blocks):
        voted, trusted = labels[indices.numpy()], trust[indices.numpy()]
        _write(found, block * size, _vote(voted, trusted, values.abs().numpy(), k, top))
    return found


def _vote(voted: np.ndarray, trust: np.ndarray, weights: np.ndarray, k: int, top: int) -> Shares:
    n, named = len(voted), voted >= 0
    found = _empty(n, top)
    places = np.arange(n)[:, None] * k + voted
    votes = np.bincount(places[named], weights[named], minlength=n * k).reshape(n, k)
    order = votes.argmax(axis=1, keepdims=True)
    if top > 1:  # for one, sorting all clusters would take longer than everything else
        order = np.argsort(-votes, axis=1, kind="stable")[:, :top]
    sums = np.take_along_axis(votes, order, axis=1)
    total = weights.sum(axis=1, dtype=np.float64)
    found.clusters[:, : order.shape[1]] = np.where(sums > 0, order, -1)
    np.divide(sums, total[:, None], out=found.shares[:, : order.shape[1]], where=total[:, None] > 0)
    trusted = (weights * trust * (voted == order[:, :1])).sum(axis=1, dtype=np.float64)
    np.divide(trusted, total, out=found.confidence, where=total > 0)
    return found


def _empty(n: int, top: int) -> Shares:
    return Shares(np.zeros(n), np.full((n, top), -1), np.zeros((n, top)))


def _write(whole: Shares, start: int, part: Shares) -> None:
    here = slice(start, start + len(part.confidence))
    whole.confidence[here], whole.clusters[here] = part.confidence, part.clusters
    whole.shares[here] = part.shares

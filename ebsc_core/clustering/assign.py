"""Assign rows that were not clustered to the clusters, by their coefficients (out-of-sample assignment)."""

from __future__ import annotations

import numpy as np
import torch

from ebsc_core.clustering.coefficients import Dictionary
from ebsc_core.data.features.rows import Rows
from ebsc_core.plugins.interfaces import Coefficients

# Number of votes counted at once: 2^23 float64 are 64 MiB.
HELD_VOTES = 1 << 23


def assign(
    rows: Rows, dictionary: Dictionary, labels: np.ndarray, top_k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Assign each new row to the cluster that gets most of its coefficients, in one pass over the rows.

    Parameters
    ----------
    rows : Rows
        ``N`` new rows of unit length, on the dictionary's device.
    dictionary : Dictionary
        The dictionary of the ``M`` rows that were clustered.
    clusters : ndarray of shape (M,)
        The clusters of these rows; -1 for noise, which has no vote.
    """
    assigned, confidence = np.empty(len(rows), np.int64), np.empty(len(rows))
    for start, block in rows.blocks():
        new = torch.full((len(block),), -1, device=block.device)
        block_range = slice(start, start + len(block))
        assigned[block_range], confidence[block_range] = vote(dictionary.express(block, top_k, new), labels)
    return assigned, confidence


def vote(coefficients: Coefficients, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find for each query the cluster with the largest sum of absolute coefficients, and its share."""
    k = int(labels.max(initial=0)) + 1
    size = max(1, HELD_VOTES // k)
    blocks = zip(coefficients.indices.split(size), coefficients.values.split(size), strict=True)
    parts = [_vote(labels[indices.numpy()], values.abs().numpy(), k) for indices, values in blocks]
    winners, shares = zip(*parts, strict=True)
    return np.concatenate(winners), np.concatenate(shares)


def _vote(voted: np.ndarray, weights: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    n, named = len(voted), voted >= 0
    places = np.arange(n)[:, None] * k + voted
    votes = np.bincount(places[named], weights[named], minlength=n * k).reshape(n, k)
    total, best = weights.sum(axis=1, dtype=np.float64), votes.max(axis=1)
    share = np.divide(best, total, out=np.zeros(n), where=total > 0)
    return np.where(best > 0, votes.argmax(axis=1), -1).astype(np.int64), share

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
class Assigned:
    """Hold the clusters that ``N`` rows are assigned to."""

    clusters: np.ndarray
    """``(N,)`` int64; -1 for a row that is expressed by no row of any cluster."""
    confidence: np.ndarray
    """``(N,)``, the share of a row's coefficients that goes to its cluster."""


def assign(rows: Rows, dictionary: Dictionary, clusters: np.ndarray, top_k: int) -> Assigned:
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
    found = Assigned(np.empty(len(rows), np.int64), np.empty(len(rows)))
    for start, block in rows.blocks():
        new = torch.full((len(block),), -1, device=block.device)
        part = vote(dictionary.express(block, top_k, new), clusters)
        here = slice(start, start + len(block))
        found.clusters[here], found.confidence[here] = part.clusters, part.confidence
    return found


def vote(coefficients: Coefficients, clusters: np.ndarray) -> Assigned:
    """Find for each query the cluster with the largest sum of absolute coefficients, and its share."""
    k = int(clusters.max(initial=0)) + 1
    size = max(1, HELD_VOTES // k)
    blocks = zip(coefficients.indices.split(size), coefficients.values.split(size), strict=True)
    parts = [_vote(clusters[indices.numpy()], values.abs().numpy(), k) for indices, values in blocks]
    chosen, shares = zip(*parts, strict=True)
    return Assigned(np.concatenate(chosen), np.concatenate(shares))


def _vote(voted: np.ndarray, weights: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    n, named = len(voted), voted >= 0
    places = np.arange(n)[:, None] * k + voted
    votes = np.bincount(places[named], weights[named], minlength=n * k).reshape(n, k)
    total, best = weights.sum(axis=1, dtype=np.float64), votes.max(axis=1)
    share = np.divide(best, total, out=np.zeros(n), where=total > 0)
    return np.where(best > 0, votes.argmax(axis=1), -1).astype(np.int64), share

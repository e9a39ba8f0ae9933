"""Images held out of a run, which its clusters have to take in afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ebsc_core.coefficients import expressed
from ebsc_core.data.images import ImageSet, sample_positions
from ebsc_core.errors import ConfigError
from ebsc_core.interfaces import CoefficientModel, Coefficients


@dataclass(frozen=True)
class Assigned:
    """Clusters given to images that took no part in finding them."""

    clusters: np.ndarray
    """``(N,)`` int64; -1 for an image that no row of any cluster expresses."""
    confidence: np.ndarray
    """``(N,)``, the share of its coefficients that goes to its cluster."""


def split(data: ImageSet, test_share: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """A seeded random split into what a run is fitted on and what it is tested on.

    Raises
    ------
    ConfigError
        If either would be empty.
    """
    n_test = round(test_share * len(data))
    if not 0 < n_test < len(data):
        raise ConfigError(
            f"test_share is {test_share}, which leaves {len(data) - n_test} of {len(data)} images to fit on "
            f"and {n_test} to test on"
        )
    test = sample_positions(len(data), n_test, seed)
    rest = np.setdiff1d(np.arange(len(data)), test, assume_unique=True)
    return data.take(rest), data.take(test)


def assign(
    model: CoefficientModel, rows: Tensor, dictionary: Tensor, clusters: np.ndarray, top_k: int
) -> Assigned:
    """Give each new row the cluster that most of its coefficients go to.

    Parameters
    ----------
    rows : Tensor of shape (M, D)
        New rows of unit length.
    dictionary : Tensor of shape (N, D)
        The rows that were clustered, on the same device.
    clusters : ndarray of shape (N,)
        Their clusters; -1 for noise, which votes for nothing.
    """
    new = torch.full((len(rows),), -1, device=rows.device)
    return vote(expressed(model, rows, dictionary, top_k, new), clusters)


def vote(coefficients: Coefficients, clusters: np.ndarray) -> Assigned:
    """The cluster with the largest sum of absolute coefficients, and its share of all of them."""
    weights = coefficients.values.abs().numpy().astype(np.float64)
    n, k = len(weights), int(clusters.max(initial=0)) + 1
    voted = clusters[coefficients.indices.numpy()]
    named = voted >= 0
    places = np.arange(n)[:, None] * k + voted
    votes = np.bincount(places[named], weights[named], minlength=n * k).reshape(n, k)
    total, best = weights.sum(axis=1), votes.max(axis=1)
    share = np.divide(best, total, out=np.zeros(n), where=total > 0)
    return Assigned(np.where(best > 0, votes.argmax(axis=1), -1).astype(np.int64), share)

"""Find the nearest rows of each row, and where their similarity leaves its bulk."""

from __future__ import annotations

import operator
from math import log

import numpy as np
import torch
from torch import Tensor

from ebsc_core.clustering.search import Found, build_index
from ebsc_core.config.schema import SearchOptions
from ebsc_core.utils.errors import ConfigError, shortened

QUERY_ROWS = 1 << 14
# Quantiles that describe the bulk. They lie so low that half of all images may have a duplicate.
LOW, HIGH = 0.1, 0.4
# So many images without a duplicate may lie beyond the end of the bulk, whatever the number of images.
EXPECTED = 0.05
# Similarities closer to 1 than this are rounding.
ROUNDING = 1e-6


def check_top(top: int) -> None:
    """Raise a ConfigError unless ``top`` is a number of images to find."""
    try:
        operator.index(top)
    except TypeError:
        raise ConfigError(f"`top` is {shortened(repr(top))}; give a whole number from 1") from None
    if top < 1:
        raise ConfigError(f"`top` is {top}; give a number from 1")


def nearest(rows: Tensor, n_neighbors: int, search: SearchOptions, seed: int) -> Found:
    """Find the nearest other rows of each row, by the largest inner products.

    Parameters
    ----------
    rows : Tensor of shape (N, D)
        Of unit length.
    n_neighbors : int
        At most ``N - 1`` are found.

    Returns
    -------
    Found
        Of shape ``(N, k)``, on the CPU.
    """
    k = min(n_neighbors, len(rows) - 1)
    index, own = build_index(rows, search, len(rows), seed), torch.arange(len(rows), device=rows.device)
    scores, indices = torch.empty(len(rows), k), torch.empty(len(rows), k, dtype=torch.int64)
    for part in index.visits(own).split(QUERY_ROWS):
        found = index.search(rows[part], k, own[part])
        scores[part.cpu()], indices[part.cpu()] = found.scores.cpu(), found.indices.cpu()
    return Found(scores, indices, torch.zeros(len(rows), 1))


def bulk_end(similarities: np.ndarray) -> float:
    """Return the similarity at which those of images without a duplicate end.

    The similarity of an image to its nearest one is the largest of many. So the bulk is taken to follow the
    distribution of largest values (Gumbel), on Fisher's scale of correlations (artanh). Two quantiles of the
    lower half give its place and width. Beyond the result, 0.05 of ``N`` images are expected.

    Parameters
    ----------
    similarities : ndarray of shape (N,)
        The similarity of each image to its nearest other one, in [-1, 1].
    """
    values = np.arctanh(np.clip(similarities, -1 + ROUNDING, 1 - ROUNDING).astype(np.float64))
    low, high = np.quantile(values, [LOW, HIGH])
    width = (high - low) / (_gumbel(HIGH) - _gumbel(LOW))
    return float(np.tanh(high + width * (log(len(values) / EXPECTED) - _gumbel(HIGH))))


def _gumbel(share: float) -> float:
    return -log(-log(share))

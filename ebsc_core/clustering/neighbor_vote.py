"""Score the rows, not the clusters, against labels: by a vote of each row's nearest neighbours.

Clusters depend on the coefficient model and the clusterer, too. This figure depends on the rows alone, so it
tells whether another objective or backbone gives better ones. Like the scores of the clusters it reads
labels, and no choice ever depends on its result.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import mode

from ebsc_core.clustering.search.exact import exhaustive
from ebsc_core.data.features.rows import Rows, SelectedRows
from ebsc_core.utils.matmul import PackedRows, full_precision
from ebsc_core.utils.sampling import sample_positions

# As many neighbours vote, or as many as half of the classes have other images: more would be strangers.
NEIGHBORS = 20
# These limits keep it at some 10 s of one core. The standard error of the share is then at most 0.7 points.
MAX_QUERIES, MAX_VOTERS = 5000, 100_000
# With this many voters at once, their products with the queries take 80 MB.
BLOCK_VOTERS = 4096


def knn_accuracy(
    rows: Rows,
    labels: np.ndarray,
    seed: int,
    device: torch.device,
    held_out: tuple[Rows, np.ndarray] | None = None,
) -> float:
    """Compute the share of rows whose class is the one that most of their nearest neighbours have.

    The neighbours are those of largest cosine among the other rows (leave one out). Of classes with equally
    many votes, the smallest number wins. Of many rows a seeded sample votes, and a sample is asked.

    Parameters
    ----------
    rows : Rows
        ``N`` plain rows of unit length.
    labels : ndarray of shape (N,)
    seed : int
    device : torch.device
        Where to compare.
    held_out : tuple of Rows and ndarray, optional
        Rows and their labels, asked in place of ``rows``, which only vote.
    """
    voters = sample_positions(len(rows), MAX_VOTERS, seed)
    pool = rows if len(voters) == len(rows) else SelectedRows(rows, voters)
    asked, truth = held_out or (pool, labels[voters])
    chosen = sample_positions(len(asked), MAX_QUERIES, seed)
    own = torch.full((len(chosen),), -1) if held_out else torch.from_numpy(chosen)
    others = int(np.median(np.unique(labels[voters], return_counts=True)[1])) - 1
    count = min(NEIGHBORS, max(1, others), len(pool) - (held_out is None))
    with full_precision():
        found = exhaustive(
            asked.take(chosen).to(device),
            (PackedRows(block.to(device)) for _, block in pool.blocks(BLOCK_VOTERS)),
            count,
            own.to(device),
        )
    votes = mode(labels[voters][found.indices.cpu().numpy()], axis=1).mode
    return float(np.mean(votes == truth[chosen]))

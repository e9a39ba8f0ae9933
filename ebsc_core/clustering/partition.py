"""Express and cluster all images during training, for the joint forms that use the whole graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ebsc_core.clustering.affinity import affinity
from ebsc_core.clustering.coefficients import Dictionary, auto_top_k
from ebsc_core.clustering.spectral.embedding import graph_embedding
from ebsc_core.clustering.spectral.kmeans import kmeans
from ebsc_core.config.schema import AffinityOptions
from ebsc_core.data.features.forms import WhitenForm, row_form
from ebsc_core.data.features.rows import HeldRows
from ebsc_core.plugins.interfaces import CoefficientModel

# This is fewer than in the final clustering: the partition is renewed some epochs later.
N_INIT = 10


@dataclass(frozen=True)
class Partition:
    """Hold the clusters of all images, and the rows that express each of them."""

    clusters: Tensor
    """``(N,)`` int64, on the CPU."""
    neighbors: Tensor
    """``(N, k)`` int64, on the CPU: the rows that express each row and are in its cluster. In place of one in
    another cluster, or without a share, stands the row itself."""


def partition(
    rows: Tensor, model: CoefficientModel, n_clusters: int, whiten: WhitenForm, seed: int
) -> Partition:
    """Cluster the graph of a model's coefficients, like spectral clustering with weighted eigenvectors.

    Parameters
    ----------
    rows : Tensor of shape (N, D)
        Unit-length rows, on the device to compute on.
    model : CoefficientModel
        The model in its current state; it is not refined.
    n_clusters : int
    whiten : True, False or "neighbors"
        Whether and how the rows are whitened first.
    seed : int
    """
    shown = row_form(HeldRows(rows), whiten, seed)(rows)
    own = torch.arange(len(shown), device=shown.device)
    coefficients = Dictionary(model, shown, seed=seed).express(shown, auto_top_k(len(rows), n_clusters), own)
    graph = affinity(coefficients, AffinityOptions(**model.graph()))
    embedding = graph_embedding(graph, n_clusters, seed, rows.device)
    clusters = torch.from_numpy(kmeans(embedding, n_clusters, N_INIT, seed, rows.device)).long()
    chosen = coefficients.indices
    counts = (coefficients.values != 0) & (clusters[chosen] == clusters[:, None])
    return Partition(clusters, torch.where(counts, chosen, torch.arange(len(chosen))[:, None]))

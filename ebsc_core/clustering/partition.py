"""Express and cluster all images during training, for the joint forms that use the whole graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ebsc_core.clustering.affinity import affinity
from ebsc_core.clustering.coefficients import Dictionary, auto_top_k
from ebsc_core.clustering.returned import preferred
from ebsc_core.clustering.search import build_index
from ebsc_core.clustering.spectral.embedding import graph_embedding
from ebsc_core.clustering.spectral.kmeans import kmeans
from ebsc_core.config.schema import AffinityOptions, SearchOptions
from ebsc_core.data.features.forms import WhitenForm, row_form
from ebsc_core.data.features.neighbor_whitening import NeighborWhitening
from ebsc_core.data.features.rows import HeldRows
from ebsc_core.plugins.interfaces import CoefficientModel
from ebsc_core.utils.matmul import full_precision

# This is fewer than in the final clustering: the partition is renewed some epochs later.
N_INIT = 10


@dataclass(frozen=True)
class Partition:
    """Hold the clusters of all images, and the rows that express each of them."""

    clusters: Tensor | None
    """``(N,)`` int64, on the CPU; None if their number is not known."""
    neighbors: Tensor
    """``(N, k)`` int64, on the CPU: the rows that express each row and are in its cluster. In place of one in
    another cluster, or without a share, stands the row itself."""
    distance: float | None = None
    """How much the pixels tell: the Jaccard distance between the rows that express a row and those that
    would do so without pixels. It is 0 if they are the same, 1 if they have none in common, and None
    without pixels."""


def partition(
    rows: Tensor,
    model: CoefficientModel,
    n_clusters: int | None,
    whiten: WhitenForm,
    seed: int,
    pixels: Tensor | None = None,
) -> Partition:
    """Cluster the graph of a model's coefficients, like spectral clustering with weighted eigenvectors.

    Parameters
    ----------
    rows : Tensor of shape (N, D)
        Unit-length rows, on the device to compute on.
    model : CoefficientModel
        The model in its current state; it is not refined.
    n_clusters : int or None
        Without a number, the rows are expressed and not clustered.
    whiten : True, False or "neighbors"
        Whether and how the rows are whitened first.
    seed : int
    pixels : Tensor of shape (N, P), optional
        Unit-length rows of the images themselves. They stand beside the rows, whatever ``whiten`` says, in
        the form of :class:`~ebsc_core.data.features.neighbor_whitening.NeighborWhitening`.
    """
    if pixels is None:
        shown = row_form(HeldRows(rows), whiten, seed)(rows)
    else:
        shown = NeighborWhitening(HeldRows(rows), HeldRows(pixels), seed=seed)(rows, pixels)
    own = torch.arange(len(shown), device=shown.device)
    coefficients = Dictionary(model, shown, seed=seed).express(shown, auto_top_k(len(rows), n_clusters), own)
    chosen, counts, clusters = coefficients.indices, coefficients.values != 0, None
    distance = None if pixels is None else _distance(chosen, _nearest(rows, whiten, seed, chosen.shape[1]))
    if n_clusters is not None:
        graph = affinity(coefficients, preferred(model, "graph", AffinityOptions()))
        embedding = graph_embedding(graph, n_clusters, seed, rows.device)
        clusters = torch.from_numpy(kmeans(embedding, n_clusters, N_INIT, seed, rows.device, graph))
        counts &= clusters[chosen] == clusters[:, None]
    return Partition(clusters, torch.where(counts, chosen, torch.arange(len(chosen))[:, None]), distance)


def _nearest(rows: Tensor, whiten: WhitenForm, seed: int, top_k: int) -> Tensor:
    """Return the rows of largest cosine for each row, ``(N, k)`` int64, on the CPU."""
    shown = row_form(HeldRows(rows), whiten, seed)(rows)
    own = torch.arange(len(shown), device=shown.device)
    with full_precision():
        return build_index(shown, SearchOptions(), len(shown), seed).search(shown, top_k, own).indices.cpu()


def _distance(some: Tensor, others: Tensor) -> float:
    """Return the Jaccard distance of sets of equal size ``(N, k)``, over all rows together."""
    common = sum(int((some == column[:, None]).sum()) for column in others.unbind(1))
    return 1 - common / (2 * some.numel() - common)

"""Whiten rows by their neighbours: damp the directions in which neighbours differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist

import torch
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.data.features.rows import Rows
from ebsc_core.data.features.whitening import Whitening, precise
from ebsc_core.utils.cosines import related
from ebsc_core.utils.matmul import full_precision
from ebsc_core.utils.sampling import sample_positions

# Neighbours per row whose differences count. Fewer are surer: with ten, faces lose 5 points of ACC.
NEIGHBORS = 3
# A neighbour counts from this share of the nearest one's cosine on. The others of a small separate piece soon
# run out; what differs between pieces must not be damped.
SEPARATE = 0.4
# Each of so many rows at most looks for its neighbours, among so many rows. More rows hardly change a mean
# over pairs, and the search of all rows among all would take longer than the clustering.
QUERIES, CANDIDATES = 10_000, 20_000
# Whitened rows count in full from so many times the gap of noise on, and not at all at this gap. In 11 data
# sets whose neighbours mean anything it is 1.36 times and more.
CERTAIN = 1.25
# The number of rows compared at once, and the number of nearest rows by which a view is weighed.
BLOCK, NEAREST = 1024, 10


class NeighborWhitening:
    """Map rows ``z -> norm(M^(1/2) v(z))`` to twice their width, with M learned from neighbours.

    ``v(z)`` puts two views of a row side by side, the row itself and the whitened row
    (:class:`Whitening`), so that the inner product of two rows is a weighted sum of both similarities. The
    weight of a view is ``(mean of the nearest - mean of all) / variance`` of its inner products: a view
    whose neighbours stand out counts more. Whitening of few and wide rows may leave noise alone; if the
    nearest of the whitened rows stand out no more than noise does, they do not count. No view has to be
    chosen, and no label enters.

    ``M = (S + λI)^-1``, where S is the mean of ``(v_i - v_j)(v_i - v_j)ᵀ`` over neighbours i, j, and λ the
    mean of its eigenvalues. Of all energies ``E(i, j) = ½ (v_i - v_j)ᵀ M (v_i - v_j)`` this one makes the
    neighbours most likely under their Gibbs distribution, up to the ridge λ. (Relevant component analysis,
    Bar-Hillel et al., JMLR 6, 2005, with neighbours for the pairs that are given there.)

    Several rows may describe the same images, for instance features and pixels. Then both views of each are
    side by side.

    Parameters
    ----------
    *sources : Rows
        ``(N, D_s)`` each: rows of the same images, in the same order. Each is read in blocks, once for its
        whitening and once for a sample.
    seed : int
        Draws the sample.
    """

    def __init__(self, *sources: Rows, seed: int = 0) -> None:
        self.whitenings = [Whitening(rows) for rows in sources]
        positions = sample_positions(len(sources[0]), CANDIDATES, seed)
        views = self._views([rows.take(positions) for rows in sources])
        with full_precision():
            weights = torch.stack([_weight(view, doubted=bool(i % 2)) for i, view in enumerate(views)])
            self.scales = (weights / weights.sum()).nan_to_num(1 / len(views)).sqrt().tolist()
            self.metric: Callable[[Tensor], Tensor] = _neighbor_metric(self._side_by_side(views))

    def __call__(self, *sources: Tensor) -> Tensor:
        """Map rows ``(B, D_s)`` of each source to unit-length rows ``(B, 2 Σ D_s)``."""
        joined = self._side_by_side(self._views(sources))
        with full_precision():
            mapped = self.metric(joined)
        return F.normalize(mapped, dim=1, out=mapped)

    def _views(self, sources: Sequence[Tensor]) -> list[Tensor]:
        """Return both views of each source, the rows themselves first."""
        pairs = zip(self.whitenings, sources, strict=True)
        return [view for whitening, rows in pairs for view in (rows, whitening(rows))]

    def _side_by_side(self, views: list[Tensor]) -> Tensor:
        joined = torch.cat([scale * view for scale, view in zip(self.scales, views, strict=True)], dim=1)
        return F.normalize(joined, dim=1, out=joined)


def _weight(rows: Tensor, doubted: bool = False) -> Tensor:
    """Return ``(mean of the nearest - mean of all) / variance`` of the inner products of rows, a scalar.

    It is 0 if all inner products are equal. If the rows are ``doubted``, it is also 0 if the nearest stand
    out no more than the largest of as many normal numbers do: then they are noise.
    """
    some = torch.arange(0, len(rows), max(1, -(-len(rows) // BLOCK)), device=rows.device)
    products = rows[some] @ rows.T
    products[torch.arange(len(some), device=rows.device), some] = torch.nan
    others = precise(products[products.isfinite()]).view(len(some), -1)
    count = others.shape[1]
    nearest = min(NEAREST, count)
    spread = others.std(correction=0)
    gap = others.topk(nearest, dim=1).values.mean() - others.mean()
    weight = torch.where(spread > torch.finfo(torch.float32).eps, gap / spread**2, 0.0)
    if doubted and nearest < count:
        by_chance = _mean_of_largest(nearest / count)
        weight = weight * ((gap / spread / by_chance - 1) / (CERTAIN - 1)).clamp(0, 1).nan_to_num(0)
    return weight


def _mean_of_largest(share: float) -> float:
    """Return the mean of the largest ``share`` of standard normal numbers."""
    normal = NormalDist()
    return normal.pdf(normal.inv_cdf(1 - share)) / share


def _neighbor_metric(rows: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a map whose inner products are ``vᵀ (S + λI)^-1 w`` up to a factor, S of neighbours in rows."""
    n, width = rows.shape
    basis = torch.linalg.qr(precise(rows).T).Q.to(rows) if n < width else None
    scatter = _scatter(rows, rows if basis is None else rows @ basis)
    ridge = (scatter.diagonal().sum() / min(n, width)).clamp_min(torch.finfo(torch.float32).tiny)
    scatter.diagonal().add_(ridge)
    root = torch.linalg.cholesky_ex(scatter / ridge).L
    unit = torch.eye(len(root), dtype=root.dtype, device=root.device)
    inverse = torch.linalg.solve_triangular(root, unit, upper=False).T
    if basis is None:
        matrix = inverse.to(rows)
        return lambda new: new @ matrix
    # Directions that no row has keep the weight 1 of the ridge alone.
    change = ((inverse - unit) @ precise(basis).T).to(rows)
    return lambda new: new + (new @ basis) @ change


def _scatter(rows: Tensor, held: Tensor) -> Tensor:
    """Sum ``(h_i - h_j)(h_i - h_j)ᵀ`` over neighbours i, j among rows; h are their coordinates ``(N, R)``."""
    n, k = len(rows), min(NEIGHBORS, len(rows) - 1)
    total = precise(held.new_zeros(held.shape[1], held.shape[1]))
    for block in torch.arange(0, n, max(1, -(-n // QUERIES)), device=rows.device).split(BLOCK):
        products = rows[block] @ rows.T
        products[torch.arange(len(block), device=rows.device), block] = -torch.inf
        nearest = products.topk(k, dim=1)
        counts = related(nearest.values, SEPARATE).to(held)
        differences = (held[block, None] - held[nearest.indices]) * counts[..., None]
        flat = differences.flatten(0, 1)
        total += precise(flat.T @ flat)
    return total

"""Turn sparse coefficients into the affinity graph that the clusterer partitions."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from sklearn import config_context
from sklearn.neighbors import kneighbors_graph
from sklearn.preprocessing import normalize

from ebsc_core.config.schema import AffinityOptions
from ebsc_core.plugins.interfaces import Coefficients

WORKING_MIB = 128
# A coefficient below this share of its row's largest is no edge of the unweighted graph: the other row is of
# another piece. For the untrained energy network it means a cosine lower by 0.46. A smaller share connects
# pieces that have fewer rows than a row keeps coefficients. A larger one cuts outliers off their clusters
# (docs/experiments/coefficients.md).
NEGLIGIBLE = 0.01


def affinity(coefficients: Coefficients, options: AffinityOptions) -> sparse.csr_matrix:
    """Compute the symmetric affinity in the requested form: CSR, (N, N), non-negative, zero diagonal."""
    if options.form == "nearest_neighbors":
        return nearest_neighbors(coefficients, options.n_neighbors)
    if options.form == "unweighted":
        sizes = coefficients.values.abs()
        kept = (sizes >= NEGLIGIBLE * sizes.amax(dim=1, keepdim=True)) & (sizes > 0)
        coefficients = Coefficients(coefficients.indices, kept.to(sizes.dtype))
    return symmetrized(coefficients)


def symmetrized(coefficients: Coefficients) -> sparse.csr_matrix:
    """Compute ``½(Ĉ + Ĉᵀ)``, where ``Ĉ`` holds the absolute coefficients, each row scaled to sum 1.

    Rows of zeros stay zero.
    """
    rows = abs(_as_matrix(coefficients))
    return _symmetric(normalize(rows, "l1", copy=False))


def nearest_neighbors(coefficients: Coefficients, n_neighbors: int) -> sparse.csr_matrix:
    """Compute ``½(G + Gᵀ)``, where ``G`` connects each row of coefficients with its nearest other rows.

    The rows of coefficients are scaled to unit length first. You et al. (EnSC, CVPR 2016) and Zhang et al.
    (SENet, CVPR 2021) build their graphs this way: two images are neighbours if they have similar
    coefficients, whether or not one expresses the other.
    """
    n_neighbors = min(n_neighbors, len(coefficients.indices) - 1)
    rows = normalize(_as_matrix(coefficients), "l2", copy=False)
    with config_context(working_memory=WORKING_MIB):  # 1 GiB by default, and no faster
        return _symmetric(kneighbors_graph(rows, n_neighbors, include_self=False))


def _as_matrix(coefficients: Coefficients) -> sparse.csr_matrix:
    n, k = coefficients.indices.shape
    indptr = np.arange(0, n * k + 1, k, dtype=np.int64)
    entries = coefficients.values.numpy().astype(np.float32).ravel()
    return sparse.csr_matrix((entries, coefficients.indices.numpy().ravel(), indptr), shape=(n, n))


def _symmetric(graph: sparse.csr_matrix) -> sparse.csr_matrix:
    symmetric = sparse.csr_matrix((graph + graph.T) * np.float32(0.5), dtype=np.float32)
    symmetric.setdiag(0)
    symmetric.eliminate_zeros()
    symmetric.sort_indices()
    return symmetric

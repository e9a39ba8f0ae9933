"""Check the contract of every clusterer, and the behaviour of this one."""

import numpy as np
from ebsc_leiden.clusterer import Leiden, LeidenOptions
from scipy import sparse

from ebsc_core.testing import clusterer_checks

# At resolution 1 an elongated group falls into pieces, and their borders depend on the order of the rows.
test_contract = clusterer_checks("leiden", options={"resolution": 0.1})


def cliques(*sizes: int) -> sparse.csr_matrix:
    """Build an affinity of groups: rows of one group are all alike, and unlike all other rows."""
    blocks = [np.ones((size, size)) - np.eye(size) for size in sizes]
    return sparse.csr_matrix(sparse.block_diag(blocks, format="csr").astype(np.float32))


def test_it_finds_how_many_there_are() -> None:
    labels = Leiden(LeidenOptions(), n_clusters=2, seed=0).fit_predict(cliques(4, 8, 6))
    assert labels.tolist() == [2] * 4 + [0] * 8 + [1] * 6


def test_a_row_without_edges_is_noise() -> None:
    labels = Leiden(LeidenOptions(), 2, 0).fit_predict(cliques(5, 1, 5))
    assert labels.tolist() == [0] * 5 + [-1] + [1] * 5

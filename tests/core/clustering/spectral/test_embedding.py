from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebsc_core.clustering.spectral.embedding import (
    MAX_POWER,
    effective_power,
    eigenvalue_weights,
    weighted_rows,
)


@given(
    values=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40),
    n_clusters=st.integers(1, 40),
)
def test_effective_power_leaves_the_weight_of_k_vectors(values: list[float], n_clusters: int) -> None:
    eigenvalues = np.sort(np.array(values, dtype=np.float32))[::-1]
    power = effective_power(eigenvalues, n_clusters)
    weight = (eigenvalues.astype(np.float64) ** (2 * power)).sum()
    if power == 0:
        assert len(values) <= n_clusters or np.count_nonzero(values) <= n_clusters
    elif power == MAX_POWER:
        assert weight >= n_clusters
    else:
        assert weight == pytest.approx(n_clusters, rel=1e-3)


def test_rows_are_of_unit_length_and_weighted() -> None:
    rows = weighted_rows(np.array([[3.0, 1.0], [0.0, 0.0], [0.0, -2.0]], np.float32), np.array([1.0, 4.0]))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0, 0], [0, -1]])


@given(values=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=40), n_clusters=st.integers(1, 40))
def test_vectors_without_a_positive_eigenvalue_count_only_where_others_are_missing(
    values: list[float], n_clusters: int
) -> None:
    eigenvalues = np.sort(np.array(values, dtype=np.float32))[::-1]
    weights = eigenvalue_weights(eigenvalues, n_clusters)
    assert ((weights >= 0) & (weights <= 1)).all()
    if np.count_nonzero(eigenvalues > 0) >= n_clusters:
        assert (weights[eigenvalues <= 0] == 0).all()
    else:
        assert weights.tolist() == [1.0 if i < n_clusters else 0.0 for i in range(len(values))]
    assert (np.diff(weights) <= 0).all()
    assert (eigenvalue_weights(eigenvalues, n_clusters, power=0) == 1).all()

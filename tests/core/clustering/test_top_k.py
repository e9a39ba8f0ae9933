"""How many coefficients a row keeps when nobody says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebsc_core import EnergySubspaceClustering
from ebsc_core.clustering.coefficients import auto_top_k


@given(n_rows=st.integers(2, 10**6), n_clusters=st.integers(1, 10**4))
def test_is_from_5_to_10_or_half_of_the_others(n_rows: int, n_clusters: int) -> None:
    chosen, half = auto_top_k(n_rows, n_clusters), max(1, (n_rows - 1) // 2)
    assert min(5, half) <= chosen <= min(10, half)


@pytest.mark.parametrize(
    ("n_rows", "n_clusters", "expected"), [(400, 40, 5), (1797, 10, 7), (70_000, 10, 10)]
)
def test_grows_with_the_clusters(n_rows: int, n_clusters: int, expected: int) -> None:
    assert auto_top_k(n_rows, n_clusters) == expected


@pytest.mark.parametrize("coefficients", ["energy", "knn"])
@pytest.mark.parametrize(("n_rows", "n_clusters"), [(4, 2), (6, 2), (6, 3), (8, 2)])
def test_few_rows_are_not_all_joined(n_rows: int, n_clusters: int, coefficients: str) -> None:
    numbers = np.random.default_rng(0)
    classes = np.arange(n_rows) % n_clusters
    rows = numbers.normal(size=(n_clusters, 16))[classes] + 0.1 * numbers.normal(size=(n_rows, 16))
    model = EnergySubspaceClustering(n_clusters, coefficients=coefficients, random_state=0)
    found = model.fit_predict(rows)
    assert len(set(zip(classes, found, strict=True))) == n_clusters == len(set(found))

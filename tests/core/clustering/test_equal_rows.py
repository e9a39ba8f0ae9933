"""Copies of a row that lie in several clusters are counted."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ebsc_core import EnergySubspaceClustering
from ebsc_core.clustering.equal_rows import SplitCopies, split_copies
from ebsc_core.data.features.rows import HeldRows


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 3)), min_size=1, max_size=40))
def test_sets_rows_and_different_rows_are_counted(drawn: list[tuple[int, int]]) -> None:
    kinds, labels = np.array(drawn).T
    clusters = {kind: set(labels[(kinds == kind) & (labels >= 0)]) for kind in set(kinds.tolist())}
    split = {kind for kind, of in clusters.items() if len(of) > 1}
    expected = SplitCopies(
        sets=len(split),
        rows=sum(kind in split and label >= 0 for kind, label in drawn),
        different=sum(len(of) > 0 for of in clusters.values()),
    )
    found = split_copies(HeldRows(torch.randn(5, 3)[kinds]), labels)
    assert found == expected


def test_the_sign_of_zero_does_not_matter() -> None:
    rows = torch.tensor([[1.0, 0.0], [1.0, -0.0], [1.0, 1e-38]])
    assert split_copies(HeldRows(rows), np.array([0, 1, 2])) == SplitCopies(1, 2, 2)


def test_a_fit_says_that_equal_rows_are_in_different_clusters() -> None:
    model = EnergySubspaceClustering(5, coefficients="knn", random_state=0)
    with pytest.warns(UserWarning, match="only 3 rows differ") as said:
        model.fit(np.repeat(np.eye(3), 20, 0))
    clusters = [set(model.labels_[i : i + 20].tolist()) for i in (0, 20, 40)]
    n_split = sum(len(of) > 1 for of in clusters)
    assert n_split  # there are 5 clusters of 3 different rows
    assert any(f"{20 * n_split} rows have exact copies in another cluster" in str(w.message) for w in said)


def test_a_fit_without_copies_says_nothing() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 8))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        EnergySubspaceClustering(3, coefficients="knn", random_state=0).fit(rows)
    assert not any("copies" in str(w.message) for w in said)


def test_a_fit_says_how_many_rows_have_no_cluster() -> None:
    rows = np.random.default_rng(0).normal(size=(100, 8)) + np.repeat(10 * np.eye(4, 8), 25, 0)
    rows[:7] = 100 * np.eye(7, 8) * [[1], [-1], [1], [-1], [1], [-1], [1]]
    model = EnergySubspaceClustering(4, coefficients="knn", clusterer="DBSCAN", random_state=0)
    with pytest.warns(UserWarning, match="have no cluster") as said:
        model.set_params(settings={"clusterer.eps": 0.4}).fit(rows)
    n_none = int((model.labels_ < 0).sum())
    assert 0 < n_none < 100
    assert any(f"{n_none} of 100 rows ({n_none}.0%) have no cluster" in str(w.message) for w in said)

"""Copies of rows do not crowd out neighbours: rows with copies are clustered like rows without."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score

from ebsc_core import EnergySubspaceClustering
from ebsc_core.clustering import copies as copies_module
from ebsc_core.clustering.copies import Copies, find_copies
from ebsc_core.data.features.rows import HeldRows, unit_rows

QUICK = {"refine.steps": 20}


def found(rows: np.ndarray, seed: int = 0) -> Copies | None:
    held = unit_rows(torch.from_numpy(rows.astype(np.float32)))
    return find_copies(HeldRows(held), np.arange(len(rows)), seed)


@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(2, 60),
    times=st.integers(1, 9),
    width=st.integers(16, 40),
    noise=st.sampled_from([0.0, 1e-4]),
    seed=st.integers(0, 99),
)
def test_each_copy_is_found_at_any_length(n: int, times: int, width: int, noise: float, seed: int) -> None:
    numbers = np.random.default_rng(seed)
    rows = numbers.normal(size=(n, width))
    origin = np.r_[np.arange(n), numbers.integers(n, size=n * (times - 1))]
    lengths = numbers.uniform(0.1, 10, size=(len(origin), 1))
    copies = found((rows[origin] + noise * numbers.normal(size=(len(origin), width))) * lengths)
    if times == 1:
        assert copies is None
    else:
        assert copies is not None
        np.testing.assert_array_equal(copies.stands_for, origin)
        assert copies.count == n * (times - 1)


@pytest.mark.parametrize("seed", range(4))
def test_equal_rows_are_found_though_many_rows_share_a_cell(seed: int) -> None:
    """On a circle, hundreds of rows are as near as those at which a row would be a copy."""
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    copies = found(np.tile(np.stack([np.cos(angles), np.sin(angles)], axis=1), (2, 1)), seed)
    assert copies is not None
    np.testing.assert_array_equal(copies.stands_for, np.tile(np.arange(200), 2))


def test_rows_are_taken_once_though_several_tables_find_them(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = unit_rows(torch.randn(3000, 16, generator=torch.Generator().manual_seed(0))).repeat(2, 1)
    taken: list[np.ndarray] = []

    class Counted(HeldRows):
        def take(self, positions: np.ndarray) -> torch.Tensor:
            taken.append(positions)
            return super().take(positions)

    def copies() -> Copies | None:
        taken.clear()
        return find_copies(Counted(rows), np.arange(len(rows)), 0)

    whole = copies()
    # Those that tell the mean distance; then twice, for equal and for near rows, those compared, and those
    # with the rows that stand for them.
    assert len(taken) == 5
    assert all((np.diff(positions) > 0).all() for positions in taken)
    monkeypatch.setattr(copies_module, "BLOCK_ENTRIES", 10_000)
    in_parts = copies()
    assert whole is not None
    assert in_parts is not None
    assert len(taken) > 5
    np.testing.assert_array_equal(whole.stands_for, in_parts.stands_for)
    np.testing.assert_array_equal(whole.stands_for, np.tile(np.arange(3000), 2))


def test_digits_have_no_copies() -> None:
    assert found(load_digits().data) is None


def test_tight_groups_are_structure_and_no_copies() -> None:
    """Rows of two groups that are all within 1 % of the distance of the groups stay distinct rows."""
    numbers = np.random.default_rng(0)
    rows = np.repeat(np.eye(2, 8), 50, axis=0) + 1e-3 * numbers.normal(size=(100, 8))
    assert found(rows) is None


def test_affinity_is_spread_to_copies_in_equal_shares() -> None:
    graph = sparse.csr_matrix(np.array([[0, 0.7], [0.7, 0]], np.float32))
    spread = Copies(np.array([0, 1, 0, 0])).spread(graph).toarray()
    expected = [[0, 0.7, 0.25, 0.25], [0.7, 0, 0, 0], [0.25, 0, 0, 0], [0.25, 0, 0, 0]]
    np.testing.assert_allclose(spread, expected, rtol=1e-6)


@pytest.mark.parametrize("coefficients", ["energy", "knn", "elastic-net", "omp", "least-squares"])
def test_rows_are_clustered_as_if_they_had_no_copies(coefficients: str) -> None:
    rows = load_digits().data[:180]
    often = np.r_[np.repeat(np.arange(60), 8), np.arange(60, 180)]
    refine = QUICK if coefficients == "energy" else {}

    def model() -> EnergySubspaceClustering:
        return EnergySubspaceClustering(
            10, coefficients=coefficients, top_k=5, settings=refine, random_state=0
        )

    alone, crowded = model().fit(rows), model().fit(rows[often])
    assert adjusted_rand_score(crowded.labels_, alone.labels_[often]) > 0.999
    assert crowded.metrics_["copies"] == 420
    assert alone.metrics_["copies"] == 0
    assert crowded.affinity_matrix_.shape == (600, 600)
    assert crowded.confidence_.min() > 0
    later = load_digits().data[180:400]
    assert adjusted_rand_score(crowded.predict(later), alone.predict(later)) > 0.95


@pytest.mark.parametrize("form", ["symmetrize", "nearest_neighbors"])
@pytest.mark.parametrize("n_clusters", [3, "auto"])
def test_rows_that_are_copies_of_few_are_clustered_by_them(form: str, n_clusters: int | str) -> None:
    settings = {"affinity.form": form}
    model = EnergySubspaceClustering(n_clusters, coefficients="knn", settings=settings, random_state=0)
    with warnings.catch_warnings():  # three is the largest number that can be tried
        warnings.simplefilter("ignore", UserWarning)
        labels = model.fit_predict(np.repeat(np.eye(3), 20, axis=0))
    assert adjusted_rand_score(labels, np.repeat(range(3), 20)) == 1


def test_as_many_clusters_are_tried_as_rows_with_their_copies_allow() -> None:
    origin = np.repeat(range(12), 20)
    rows = np.random.default_rng(0).normal(size=(12, 40))[origin]
    labels = EnergySubspaceClustering("auto", coefficients="knn", random_state=0).fit_predict(rows)
    assert adjusted_rand_score(labels, origin) == 1


def test_fewer_distinct_rows_than_clusters_are_said() -> None:
    model = EnergySubspaceClustering(5, coefficients="knn", random_state=0)
    with pytest.warns(UserWarning, match="found 3 clusters, not 5: only 3 rows differ"):
        labels = model.fit_predict(np.repeat(np.eye(3), 20, axis=0))
    np.testing.assert_array_equal(labels, np.repeat(range(3), 20))


def test_equal_rows_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"all 20 rows, of 3 feature\(s\), have the same direction"):
        EnergySubspaceClustering(2, random_state=0).fit(np.ones((20, 3)))


@pytest.mark.parametrize("width", [3, 64])
def test_chains_of_near_rows_are_no_copies(width: int) -> None:
    """Dense groups in few dimensions: each row is near another, and the ends of the chain are far apart."""
    numbers = np.random.default_rng(0)
    centres = np.array([[1.0, 0.2, 0], [1.0, -0.2, 0]])
    dense = np.concatenate([c + 0.06 * numbers.normal(size=(3000, 3)) for c in centres])
    rows = np.concatenate([dense, numbers.normal(size=(1500, 3))])
    rows = rows @ np.linalg.qr(numbers.normal(size=(width, width)))[0][:3]
    copies = found(rows)
    assert copies is not None
    unit = unit_rows(torch.from_numpy(rows.astype(np.float32))).numpy()
    apart = np.linalg.norm(unit - unit[copies.stands_for], axis=1)
    pairs = numbers.integers(len(unit), size=(2, 20_000))
    mean = np.linalg.norm(unit[pairs[0]] - unit[pairs[1]], axis=1).mean()
    assert apart.max() < 1.1 * copies_module.NEAR * mean
    assert copies.count < len(rows) / 4
    np.testing.assert_array_equal(copies.stands_for[copies.distinct], copies.distinct)


def test_equal_rows_are_copies_though_near_rows_lead_away_from_them() -> None:
    """Of the chain A, B, C row A stands for B. C is too far from A, and its equals are its copies."""
    numbers = np.random.default_rng(0)
    rows = numbers.normal(size=(200, 32))
    step = np.zeros(32)
    step[0] = 0.006 * np.linalg.norm(rows[0] - rows[1])
    chain = np.stack([rows[0], rows[0] + step, *[rows[0] + 2 * step] * 50])
    copies = found(np.concatenate([rows[1:], chain]))
    assert copies is not None
    equal = copies.stands_for[-50:]
    assert len(set(equal.tolist())) == 1

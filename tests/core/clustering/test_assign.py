"""Rows that took no part in the clusters join them by their coefficients."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.clustering import assign as assignment
from ebsc_core.clustering.assign import assign, vote
from ebsc_core.clustering.coefficients import Dictionary
from ebsc_core.data.features.rows import HeldRows
from ebsc_core.plugins.interfaces import Coefficients
from ebsc_plugins.coefficients.knn import CosineNeighbors, KnnOptions


def slow_vote(
    indices: np.ndarray, values: np.ndarray, clusters: np.ndarray, trust: np.ndarray
) -> tuple[list[int], list[float]]:
    """One row, one coefficient at a time."""
    chosen, shares = [], []
    for row in range(len(indices)):
        votes: dict[int, float] = {}
        total = 0.0
        for index, value in zip(indices[row], values[row], strict=True):
            total += abs(float(value))
            if clusters[index] >= 0:
                votes[clusters[index]] = votes.get(clusters[index], 0.0) + abs(float(value))
        best = max(votes.values(), default=0.0)
        chosen.append(min(c for c, v in votes.items() if v == best) if best > 0 else -1)
        trusted = sum(
            abs(float(value)) * trust[index]
            for index, value in zip(indices[row], values[row], strict=True)
            if clusters[index] == chosen[-1] >= 0
        )
        shares.append(trusted / total if total > 0 else 0.0)
    return chosen, shares


class TestVote:
    @given(
        n=st.integers(1, 12),
        m=st.integers(0, 8),
        k=st.integers(1, 6),
        seed=st.integers(0, 10**6),
        data=st.data(),
    )
    @settings(deadline=None)
    def test_agrees_with_counting_by_hand(
        self, n: int, m: int, k: int, seed: int, data: st.DataObject
    ) -> None:
        clusters = np.array(data.draw(st.lists(st.integers(-1, 4), min_size=n, max_size=n)))
        rng = np.random.default_rng(seed)
        indices = rng.integers(0, n, (m, k))
        # Halves are exact, so that ties are ties; signs, and zeros where fewer rows are used.
        values = rng.integers(-4, 5, (m, k)).astype(np.float32) / 2
        trust = rng.random(n)
        before, assignment.HELD_VOTES = assignment.HELD_VOTES, 9  # in several blocks
        try:
            given = Coefficients(torch.from_numpy(indices), torch.from_numpy(values))
            found, *others = (vote(given, clusters, trust, top) for top in (1, 2, 7))
        finally:
            assignment.HELD_VOTES = before
        chosen, shares = slow_vote(indices, values, clusters, trust)
        assert found.labels.tolist() == chosen
        assert found.labels.dtype == np.int64
        np.testing.assert_allclose(found.confidence, shares)
        for other in others:
            np.testing.assert_array_equal(other.confidence, found.confidence)
            np.testing.assert_array_equal(other.clusters[:, :1], found.clusters)
            np.testing.assert_array_equal(other.shares[:, :1], found.shares)

    @given(
        n=st.integers(1, 12), m=st.integers(1, 8), k=st.integers(1, 6), top=st.integers(1, 4), data=st.data()
    )
    def test_ranks_are_those_of_counting_by_hand(
        self, n: int, m: int, k: int, top: int, data: st.DataObject
    ) -> None:
        clusters = np.array(data.draw(st.lists(st.integers(-1, 4), min_size=n, max_size=n)))
        rng = np.random.default_rng(data.draw(st.integers(0, 99)))
        indices = rng.integers(0, n, (m, k))
        values = rng.integers(-4, 5, (m, k)).astype(np.float32) / 2
        coefficients = Coefficients(torch.from_numpy(indices), torch.from_numpy(values))
        whole = vote(coefficients, clusters, np.ones(n), top)
        found, shares = whole.clusters, whole.shares
        for row in range(m):
            sums = [float(np.abs(values[row])[clusters[indices[row]] == c].sum()) for c in range(5)]
            order = sorted((c for c in range(5) if sums[c] > 0), key=lambda c: -sums[c])[:top]
            assert found[row].tolist() == order + [-1] * (top - len(order))
            expected = [sums[c] / np.abs(values[row]).sum() for c in order] + [0.0] * (top - len(order))
            np.testing.assert_allclose(shares[row], expected)

    def test_noise_votes_for_nothing_but_counts_against_confidence(self) -> None:
        coefficients = Coefficients(torch.tensor([[0, 1], [0, 0]]), torch.tensor([[3.0, -1.0], [1.0, 1.0]]))
        found = vote(coefficients, np.array([-1, 2]), np.ones(2))
        assert found.labels.tolist() == [2, -1]
        assert found.confidence.tolist() == [0.25, 0.0]

    def test_nothing_but_noise(self) -> None:
        coefficients = Coefficients(torch.zeros(3, 2, dtype=torch.int64), torch.ones(3, 2))
        found = vote(coefficients, np.array([-1]), np.ones(1))
        assert found.labels.tolist() == [-1] * 3


COSINES = CosineNeighbors(KnnOptions(weighted=True), 4)


def assign_all(
    rows: Tensor, dictionary: Tensor, clusters: np.ndarray, top_k: int
) -> tuple[np.ndarray, np.ndarray]:
    trust = np.ones(len(dictionary))
    found = assign(HeldRows(rows), Dictionary(COSINES, dictionary), clusters, trust, top_k)
    return found.labels, found.confidence


def test_a_new_row_may_use_its_own_copy_in_the_dictionary() -> None:
    rows = F.normalize(torch.randn(20, 4), dim=1)
    found, confidence = assign_all(rows, rows, np.arange(20), top_k=1)
    assert found.tolist() == list(range(20))
    assert confidence.tolist() == [1.0] * 20


def test_as_many_coefficients_as_there_are_rows() -> None:
    rows = F.normalize(torch.randn(5, 4), dim=1)
    assert len(assign_all(rows[:2], rows, np.zeros(5, np.int64), top_k=5)[0]) == 2

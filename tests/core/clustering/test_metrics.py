from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from ebsc_core.clustering.metrics import clustering_accuracy, label_free, own_share, scores
from ebsc_core.data.features.rows import HeldRows

pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=25)


@given(pairs)
@settings(max_examples=60, deadline=None)
def test_accuracy_agrees_with_trying_every_assignment(given_pairs: list[tuple[int, int]]) -> None:
    labels, clusters = np.array(given_pairs).T
    best = max(
        np.mean([assignment[cluster] == label for label, cluster in given_pairs])
        for assignment in permutations(range(5))
    )
    assert clustering_accuracy(labels, clusters) == pytest.approx(best)


@given(pairs, st.permutations(range(5)))
@settings(max_examples=60, deadline=None)
def test_the_names_of_clusters_do_not_matter(given_pairs: list[tuple[int, int]], renamed: list[int]) -> None:
    labels, clusters = np.array(given_pairs).T
    assert scores(labels, np.array(renamed)[clusters]) == pytest.approx(scores(labels, clusters))


def test_a_relabeled_truth_is_perfect() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    assert scores(labels, np.array([7, 7, 0, 0, 3, 3])) == pytest.approx({"acc": 1, "nmi": 1, "ari": 1})


@pytest.mark.parametrize(
    ("clusters", "expected"),
    [([0, 1, 2, 3], 0.5), ([0, 0, 0, 0], 0.5), ([0, 0, 1, 2], 0.75)],
    ids=["more clusters", "one cluster", "one class split"],
)
def test_accuracy_with_other_numbers_of_clusters_than_classes(clusters: list[int], expected: float) -> None:
    assert clustering_accuracy(np.array([0, 0, 1, 1]), np.array(clusters)) == expected


@pytest.mark.parametrize(("clusters", "expected"), [([0, 0, -1, -1], 0.5), ([-1] * 4, 0.0)])
def test_noise_is_never_right(clusters: list[int], expected: float) -> None:
    assert clustering_accuracy(np.array([0, 0, 1, 1]), np.array(clusters)) == expected


GRAPH = sparse.csr_matrix(
    np.array([[0, 3, 1, 0], [3, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=np.float32)
)


def test_the_share_within_the_own_cluster() -> None:
    assert own_share(GRAPH, np.array([0, 0, 1, 1])).tolist() == [0.75, 1, 0, 0]


def test_rows_count_by_their_weight() -> None:
    weights = np.array([0.5, 1, 0.25, 1])
    assert own_share(GRAPH, np.array([0, 0, 0, 1]), weights).tolist() == [3.25 / 4, 0.5, 0.5, 0]


def test_noise_has_no_share() -> None:
    assert own_share(GRAPH, np.array([-1, -1, -1, 0])).tolist() == [0, 0, 0, 0]


def figures(clusters: list[int], n_clusters: int = 3) -> dict:
    rows = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    eigenvalues = np.array([1, 0.9, 0.8, 0.1], dtype=np.float32)
    within = float(own_share(GRAPH, np.array(clusters)).mean())
    held = HeldRows(torch.from_numpy(rows))
    return label_free(held, np.array(clusters), GRAPH, within, eigenvalues, n_clusters, seed=0)


def test_label_free_figures_of_a_plain_case() -> None:
    found = figures([0, 0, 1, 2])
    assert found["cluster_sizes"] == [2, 1, 1]
    assert found["unassigned"] == 0
    assert found["eigengap"] == pytest.approx(0.7)
    assert found["connected_components"] == 2
    assert found["within_cluster_mass"] == pytest.approx((0.75 + 1) / 4)


def test_empty_clusters_and_noise_are_counted() -> None:
    found = figures([0, 0, 2, -1])
    assert found["cluster_sizes"] == [2, 1, 0]
    assert found["unassigned"] == 1


@pytest.mark.parametrize("clusters", [[1, 1, 1, 1], [-1, -1, 0, 0], [-1] * 4, [0, 1, 2, 3]])
def test_no_silhouette_where_none_is_defined(clusters: list[int]) -> None:
    found = figures(clusters, n_clusters=4)
    assert found["silhouette"] is None
    assert found["eigengap"] is None  # as many eigenvalues as clusters: no next one


def test_noise_does_not_enter_the_silhouette() -> None:
    assert figures([0, 0, 1, -1], 2)["silhouette"] > 0.6
    assert figures([0, 1, 0, 1], 2)["silhouette"] < 0

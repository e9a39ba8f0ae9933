"""Graphs whose number of clusters is known by how they are made."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

from ebsc_core.clustering import n_clusters as module
from ebsc_core.clustering.n_clusters import (
    Candidate,
    NumberOfClusters,
    eigengaps,
    find_n_clusters,
    max_clusters,
    perturbed,
    rand_index,
    ranked,
)


def planted(sizes: list[int], between: float = 0.0, seed: int = 0) -> sparse.csr_matrix:
    """Six random neighbours a node, those of a share ``between`` from anywhere, the others from its block."""
    rng = np.random.default_rng(seed)
    block = np.repeat(np.arange(len(sizes)), sizes)
    starts, n = np.concatenate([[0], np.cumsum(sizes)]), len(block)
    rows = np.repeat(np.arange(n), 6)
    own = starts[block[rows]] + (rng.random(len(rows)) * np.asarray(sizes)[block[rows]]).astype(int)
    columns = np.where(rng.random(len(rows)) < between, rng.integers(n, size=len(rows)), own)
    weights = rng.uniform(0.5, 1, len(rows)).astype(np.float32)
    graph = sparse.csr_matrix((weights, (rows, columns)), shape=(n, n))
    graph = sparse.csr_matrix(graph + graph.T)
    graph.setdiag(0)
    graph.eliminate_zeros()
    return graph


@pytest.mark.parametrize(
    ("sizes", "between"),
    [
        ([60, 60], 0.05),
        ([40, 60, 50], 0.0),
        ([40, 60, 50], 0.1),
        ([20, 90, 30, 40, 25], 0.1),
        ([30] * 8, 0.0),
        ([30] * 8, 0.1),
    ],
)
def test_planted_blocks_are_counted(sizes: list[int], between: float) -> None:
    found = find_n_clusters(planted(sizes, between))
    assert found.chosen == len(sizes)
    assert found.candidates[0].stability > 0.95
    assert not found.doubts()


def test_many_blocks_are_counted() -> None:
    found = find_n_clusters(planted([12] * 60))
    assert found.chosen == 60
    assert not found.doubts()


def test_many_blocks_that_are_nearly_separate_are_counted() -> None:
    """The graph is in one piece but for a few nodes, and a cut into five is as stable as many."""
    found = find_n_clusters(planted([8] * 80, 0.02))
    assert found.chosen == 80


def test_a_coarse_cut_that_is_stable_does_not_end_the_search() -> None:
    """Two halves that nothing connects come out again each time; each has twenty blocks."""
    halves = [planted([12] * 20, 0.05, seed) for seed in (0, 1)]
    found = find_n_clusters(sparse.csr_matrix(sparse.block_diag(halves), dtype=np.float32))
    assert next(c for c in found.candidates if c.k == 2).stability > 0.95
    assert found.chosen == 40


def test_the_order_of_nodes_does_not_matter() -> None:
    graph = planted([30] * 5, 0.1)
    order = np.random.default_rng(1).permutation(graph.shape[0])
    assert find_n_clusters(sparse.csr_matrix(graph[order][:, order])).chosen == 5


def test_the_seed_decides() -> None:
    graph = planted([20] * 3, 0.4)
    first, same, other = (find_n_clusters(graph, seed) for seed in (0, 0, 1))
    assert first.record() == same.record()
    assert first.record() != other.record()


def test_the_largest_seed_is_one() -> None:
    assert find_n_clusters(planted([20] * 3), 2**32 - 1).chosen == 3


def test_candidates_are_ranked_and_the_record_is_plain() -> None:
    found = find_n_clusters(planted([30] * 4, 0.1))
    scores = [candidate.score for candidate in found.candidates]
    assert scores[1:] == sorted(scores[1:], reverse=True)
    assert scores[0] >= max(scores) - module.EQUAL
    assert len(found.runners_up) == 4
    record = found.record()
    assert record["chosen"] == 4 == record["candidates"][0]["k"]
    assert set(record["candidates"][0]) == {"k", "stability", "score", "eigengap"}
    assert len(record["eigenvalues"]) == max_clusters(120) + 1
    assert record["eigenvalues"] == sorted(record["eigenvalues"], reverse=True)


def test_the_line_and_the_doubt_show_the_scores_that_rank() -> None:
    stability = {14: 0.862, 16: 0.861, 5: 0.871}
    scores = {14: 0.862, 16: 0.860, 5: 0.858}
    candidates = tuple(Candidate(k, stability[k], score, 0.1) for k, score in scores.items())
    found = NumberOfClusters(candidates, 1.0, np.ones(3), 100)
    assert found.said() == (
        "number of clusters, with its score: 14 (0.862); after it come 16 (0.860), 5 (0.858)"
    )
    (doubt,) = found.doubts()
    assert "the score of 14 (0.862) is hardly different from that of 16 (0.860) or 5 (0.858)" in doubt


@pytest.mark.parametrize(
    ("stability", "doubt"),
    [
        ({2: 0.99, 3: 0.6, 19: 0.7, 20: 0.85, 21: 0.8}, "2 clusters may be a coarse cut: 20 come out again"),
        ({2: 0.99, 3: 0.6, 20: 0.7, 21: 0.5}, None),  # the finer cut does not come out again
        ({2: 0.99, 3: 0.95, 4: 0.9, 5: 0.85}, None),  # it only fades
        ({2: 0.88, 3: 0.6, 4: 0.5}, "2 clusters may be a coarse cut: there may be groups within them"),
    ],
)
def test_a_coarse_cut_is_doubted(stability: dict[int, float], doubt: str | None) -> None:
    candidates = tuple(Candidate(k, s, 1 - k / 10, 0.1) for k, s in stability.items())
    doubts = NumberOfClusters(candidates, 1.0, np.ones(3), 100).doubts()
    assert [one for one in doubts if "coarse" in one] == [one for one in doubts if doubt and doubt in one]
    assert bool(doubt) == bool(doubts)


def test_the_line_says_when_the_eigengap_decided() -> None:
    low, high = Candidate(5, 0.9, 0.9, 0.5), Candidate(7, 0.9, 0.903, 0.1)
    found = NumberOfClusters(tuple(ranked([low, high])), 1.0, np.ones(3), 100)
    assert found.chosen == 5
    assert found.said().endswith("of scores within 0.005 of the highest, the eigengap decides")


def test_a_graph_without_clusters_is_doubted() -> None:
    found = find_n_clusters(planted([150], seed=3))
    assert any("the number of clusters is not stable" in doubt for doubt in found.doubts())


def test_more_pieces_than_are_considered_are_doubted() -> None:
    found = find_n_clusters(planted([4] * 30))
    assert found.chosen <= max_clusters(120) == 24
    assert found.doubts()


def test_the_largest_number_can_be_given() -> None:
    found = find_n_clusters(planted([30] * 8), most=3)
    assert {candidate.k for candidate in found.candidates} == {2, 3}


@pytest.mark.parametrize("n", [2, 3, 5, 9, 14])
def test_few_rows(n: int) -> None:
    graph = sparse.csr_matrix(np.ones((n, n), np.float32) - np.eye(n, dtype=np.float32))
    assert find_n_clusters(graph).chosen == 2


def test_one_row_has_no_clusters() -> None:
    with pytest.raises(ValueError, match="1 rows"):
        find_n_clusters(sparse.csr_matrix((1, 1), dtype=np.float32))


def test_nodes_without_edges_are_survived() -> None:
    graph = sparse.block_diag([planted([40, 40]), sparse.csr_matrix((3, 3), dtype=np.float32)], format="csr")
    assert find_n_clusters(sparse.csr_matrix(graph, dtype=np.float32)).chosen in (2, 3)
    assert find_n_clusters(sparse.csr_matrix((12, 12), dtype=np.float32)).chosen == 2


def test_a_coarser_graph_has_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = planted([100] * 5, 0.03)
    monkeypatch.setattr(module, "NODES", 250)
    found = find_n_clusters(graph)
    assert found.nodes <= 250
    assert found.chosen == 5


@given(n=st.integers(2, 10**7))
def test_no_more_are_considered_than_rows_allow(n: int) -> None:
    assert 2 <= max_clusters(n) <= min(300, max(2, n // 5))


@given(data=st.data(), n=st.integers(2, 40))
def test_the_rand_index_is_scikit_learns_of_the_rows(data: st.DataObject, n: int) -> None:
    clusters = st.lists(st.integers(0, 4), min_size=n, max_size=n)
    first, second = (np.array(data.draw(clusters)) for _ in range(2))
    sizes = np.array(data.draw(st.lists(st.integers(1, 4), min_size=n, max_size=n)))
    expected = adjusted_rand_score(np.repeat(first, sizes), np.repeat(second, sizes))
    assert rand_index(first, second, sizes) == pytest.approx(expected)


@given(values=st.lists(st.floats(-1, 1), min_size=2, max_size=60))
def test_gaps_add_up_to_what_the_eigenvalues_lose(values: list[float]) -> None:
    eigenvalues = np.sort(np.array([1.0, *values]))[::-1]
    gaps, time = eigengaps(eigenvalues)
    assert (gaps >= 0).all()
    assert gaps.sum() == pytest.approx(1 - max(eigenvalues[-1], 1e-12) ** time)
    if 0 < eigenvalues[-1] < 0.999:
        assert gaps.sum() == pytest.approx(1 - np.exp(-1))


@settings(max_examples=20)
@given(seed=st.integers(0, 100))
def test_a_perturbed_graph_has_the_same_edges_and_is_symmetric(seed: int) -> None:
    graph = planted([10, 12], 0.2)
    graph.setdiag(2)  # as a coarse graph has
    found = perturbed(sparse.csr_matrix(graph), np.random.default_rng(seed))
    assert (found != found.T).nnz == 0
    assert (found != graph).nnz == graph.nnz
    assert ((found > 0) != (graph > 0)).nnz == 0


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ({9: 0.9, 10: 0.02, 11: 0.03, 12: 0.05}, 10),  # of equal neighbours the smallest; 9 is not equal
        ({10: 0.001, 11: 0.05, 12: 0.02}, 11),  # the gap of 10 is faint
        ({10: 0.04, 12: 0.05}, 12),  # no neighbours
    ],
)
def test_of_equal_neighbors_the_smaller_is_taken(gaps: dict[int, float], expected: int) -> None:
    scores = {9: 0.9}
    candidates = [Candidate(k, 0.95, scores.get(k, 0.95 + k / 1e4), gap) for k, gap in gaps.items()]
    found = ranked(candidates)
    assert found[0].k == expected
    assert sorted(each.k for each in found) == sorted(gaps)

"""The tree of clusters: what belongs together is joined first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from ebsc_core.curation.graph import Graph, affinity_between
from ebsc_core.curation.tree import tree_of
from ebsc_core.utils.errors import ConfigError


def graph(dense: np.ndarray, clusters: np.ndarray) -> Graph:
    return Graph(sparse.csr_matrix(dense), np.arange(len(clusters)), clusters)


# Rows of clusters 2, 5, 7, 9 and of none. 2 and 7 are connected strongly, 5 and 9 less, 2 and 9 hardly.
CLUSTERS = np.array([2, 2, 5, 7, 9, -1])
DENSE = np.zeros((6, 6))
for i, j, weight in ((0, 1, 9.0), (1, 3, 6), (2, 4, 2), (0, 4, 0.5), (4, 5, 50)):
    DENSE[i, j] = DENSE[j, i] = weight
SIZES = {2: 20, 5: 1, 7: 3, 9: 4}


def test_what_shares_most_affinity_is_joined_first() -> None:
    tree = tree_of(graph(DENSE, CLUSTERS), SIZES, {7: "herbs"})
    assert [node.cluster for node in tree.nodes] == [2, 5, 7, 9, None, None, None]
    # 5 has no other affinity than that to 9, so its share is larger than that of 7, which has more.
    mass = affinity_between(graph(DENSE, CLUSTERS), [2, 5, 7, 9])
    volume = mass.sum(axis=1)
    assert volume.tolist() == [24.5, 2, 6, 2.5]
    assert tree.nodes[4].affinity == round(2 / np.sqrt(2 * 2.5), 6)
    assert tree.nodes[4].children == (3, 1)
    assert tree.nodes[5].affinity == round(6 / np.sqrt(24.5 * 6), 6)
    assert [node.size for node in tree.nodes] == [20, 1, 3, 4, 5, 23, 28]
    assert [(lead, node.cluster) for lead, node in tree.lines()] == [
        ("", None),
        ("├─ ", None),
        ("│  ├─ ", 2),
        ("│  └─ ", 7),
        ("└─ ", None),
        ("   ├─ ", 9),
        ("   └─ ", 5),
    ]
    assert tree.order() == [2, 7, 9, 5]
    assert tree.record()[2]["name"] == "herbs"


def test_one_cluster_is_the_root() -> None:
    tree = tree_of(graph(DENSE, np.zeros(6, int)), {0: 6}, {})
    assert [(lead, node.cluster) for lead, node in tree.lines()] == [("", 0)]


def test_no_cluster_has_no_tree() -> None:
    with pytest.raises(ConfigError, match="there are 0 clusters; a tree needs 1"):
        tree_of(graph(DENSE, np.full(6, -1)), {}, {})


@given(st.integers(2, 12), st.integers(0, 999))
def test_each_cluster_is_in_the_tree_once_and_joins_get_looser(k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    clusters = rng.integers(-1, k, 40)
    dense = rng.random((40, 40)).astype(np.float32) * (rng.random((40, 40)) < 0.1)
    found = graph(dense + dense.T, clusters)
    tree = tree_of(found, dict.fromkeys(range(k), 1), {})
    assert sorted(tree.order()) == list(range(k))
    joins = [node.affinity for node in tree.nodes[k:]]
    assert joins == sorted(joins, reverse=True)
    assert tree.nodes[-1].size == k
    slow = [[dense_sum(found, a, b) for b in range(k)] for a in range(k)]
    assert np.allclose(affinity_between(found, range(k)), slow, atol=1e-4)


def dense_sum(found: Graph, a: int, b: int) -> float:
    return float(found.matrix.toarray()[np.ix_(found.clusters == a, found.clusters == b)].sum())

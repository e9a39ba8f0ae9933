"""Every figure that the page derives, on data small enough to do by hand."""

from __future__ import annotations

import base64
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import sparse

from ebsc_core.clustering.metrics import clustering_accuracy, own_share
from ebsc_core.curation.graph import Graph, graph_of, own_affinity
from ebsc_core.report.advice import advice
from ebsc_core.report.clusters import between, describe, ties
from ebsc_core.report.confusion import compare_with_classes, confusions, natural
from ebsc_core.report.heatmap import heat, table_heat
from ebsc_core.runs.store.saved import Assignments


def assignments(clusters, labels=None, confidence=None, fitted=None) -> Assignments:
    n = len(clusters)
    return Assignments(
        ids=[f"image {i}" for i in range(n)],
        clusters=np.array(clusters),
        confidence=np.ones(n) if confidence is None else np.array(confidence, dtype=float),
        labels=labels,
        fitted=n if fitted is None else fitted,
    )


def graph(dense, clusters) -> Graph:
    return Graph(sparse.csr_matrix(np.array(dense, float)), np.arange(len(clusters)), np.array(clusters))


FOUR = graph([[0, 3, 1, 0], [3, 0, 0, 0], [1, 0, 0, 4], [0, 0, 4, 0]], [0, 0, 1, 1])


class TestClusters:
    def test_own_affinity_is_what_goes_to_the_own_cluster(self) -> None:
        assert own_affinity(FOUR).tolist() == [3, 3, 4, 4]

    def test_own_affinity_over_all_of_it_is_the_own_share(self) -> None:
        total = FOUR.matrix.sum(axis=1).A1
        assert np.allclose(own_affinity(FOUR) / total, own_share(FOUR.matrix, FOUR.clusters))

    def test_images_of_no_cluster_have_no_affinity_of_their_own(self) -> None:
        assert own_affinity(graph([[0, 1], [1, 0]], [-1, -1])).tolist() == [0, 0]

    def test_shares_between_clusters(self) -> None:
        assert np.allclose(between(FOUR, 3), [[6 / 7, 1 / 7, 0], [1 / 9, 8 / 9, 0], [0, 0, 0]])

    def test_ties_are_the_largest_shares_that_go_elsewhere(self) -> None:
        found = ties(between(FOUR, 3), 5)
        assert [(tie.cluster, tie.other) for tie in found] == [(0, 1), (1, 0)]
        assert found[0].share == pytest.approx(1 / 7)

    def test_of_each_cluster(self) -> None:
        found = assignments([0, 0, 1, 1], ["a", "b", "b", "b"], [0.75, 1, 0.8, 1])
        first, second = describe(found, FOUR, between(FOUR, 2), 2, 10)
        assert (first.number, first.size, first.confidence) == (0, 2, 0.875)
        assert (first.label, first.purity) == ("a", 0.5)
        assert (second.label, second.purity) == ("b", 1)
        assert (first.leans, first.leak) == (1, pytest.approx(1 / 7))
        assert (first.typical.tolist(), first.doubtful.tolist()) == ([1, 0], [])

    def test_typical_and_doubtful_images_differ(self) -> None:
        n = 30
        found = assignments([0] * n, None, np.arange(n) / n)
        ring = np.roll(np.eye(n), 1, axis=1) * np.arange(n)[:, None]
        one = graph(ring + ring.T, [0] * n)
        (cluster,) = describe(found, one, None, 9, 10)
        assert (len(cluster.typical), len(cluster.doubtful)) == (6, 3)
        assert not set(cluster.typical) & set(cluster.doubtful)
        assert cluster.doubtful.tolist() == [0, 1, 2]
        assert cluster.typical.tolist() == [29, 28, 27, 26, 25, 24]

    def test_of_equal_confidence_the_largest_affinity_is_the_most_typical(self) -> None:
        (cluster, _) = describe(
            assignments([0, 0, 0, 1]),
            graph([[0, 1, 2, 0], [1, 0, 5, 0], [2, 5, 0, 0], [0, 0, 0, 0]], [0, 0, 0, 1]),
            None,
            3,
            10,
        )
        assert (cluster.typical.tolist(), cluster.doubtful.tolist()) == ([2, 1], [0])
        assert (cluster.label, cluster.leans) == (None, None)

    def test_without_an_affinity_the_confident_are_typical(self) -> None:
        found = assignments([0, 0, 0], None, [0.2, 0.9, 0.5])
        (cluster,) = describe(found, None, None, 3, 10)
        assert (cluster.typical.tolist(), cluster.doubtful.tolist()) == ([1, 2], [0])

    def test_the_largest_are_shown_and_held_out_images_do_not_count(self) -> None:
        found = assignments([0, 1, 1, 2, 2, 2, 0, 0, 0], fitted=6)
        shown = describe(found, None, None, 6, 2)
        assert [(cluster.number, cluster.size) for cluster in shown] == [(1, 2), (2, 3)]

    def test_an_affinity_that_is_not_of_the_images_is_not_used(self) -> None:
        run = SimpleNamespace(
            assignments=assignments([0, 0, 1]),
            curated=assignments([0, 0, 1]),
            affinity=FOUR.matrix,
            metrics={},
            config=SimpleNamespace(seed=0),
        )
        assert graph_of(run) is None

    def test_of_a_dictionary_the_positions_are_those_of_the_sample(self) -> None:
        run = SimpleNamespace(
            assignments=assignments([0, 1] * 5),
            curated=assignments([0, 1] * 5),
            affinity=FOUR.matrix,
            metrics={"dictionary_size": 4},
            config=SimpleNamespace(seed=3),
        )
        found = graph_of(run)
        assert found is not None
        expected = np.sort(np.random.default_rng(3).permutation(10)[:4])
        assert found.positions.tolist() == expected.tolist()
        assert found.clusters.tolist() == (expected % 2).tolist()


class TestClasses:
    found = assignments([1, 1, 0, 0, 0, 2, -1], list("aabbacb"), [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0])

    def test_matched_pairs_stand_on_the_diagonal(self) -> None:
        result = compare_with_classes(self.found)
        assert result is not None
        assert (result.classes, result.clusters) == (["a", "b", "c"], [1, 0, 2, -1])
        assert result.counts.tolist() == [[2, 1, 0, 0], [0, 2, 0, 1], [0, 0, 1, 0]]
        assert result.matched == {1: "a", 0: "b", 2: "c"}

    def test_figures_of_a_class(self) -> None:
        result = compare_with_classes(self.found)
        assert result is not None
        b = result.figures[1]
        assert (b.name, b.size, b.cluster) == ("b", 3, 0)
        assert (b.precision, b.recall, b.f1) == (pytest.approx(2 / 3),) * 3

    def test_what_went_wrong(self) -> None:
        result = compare_with_classes(self.found)
        assert result is not None
        assert result.wrong.tolist() == [4, 6]
        groups = confusions(result, self.found, 5, 5)
        assert [(g.label, g.cluster, g.taken_for, g.count) for g in groups] == [
            ("a", 0, "b", 1),
            ("b", -1, None, 1),
        ]

    def test_a_class_that_no_cluster_is_left_for(self) -> None:
        result = compare_with_classes(assignments([0, 0, 0], list("aab")))
        assert result is not None
        assert result.figures[1].cluster is None
        assert (result.figures[1].recall, result.accuracy) == (0, pytest.approx(2 / 3))
        assert result.wrong.tolist() == [2]

    def test_held_out_images_alone_are_scored(self) -> None:
        result = compare_with_classes(assignments([0, 0, 1, 1], list("abab"), fitted=2))
        assert result is not None
        assert result.scored.tolist() == [2, 3]

    def test_numbers_are_sorted_by_value(self) -> None:
        result = compare_with_classes(assignments([0, 1, 2], ["10", "9", "x"]))
        assert result is not None
        assert [one.name for one in result.figures] == ["9", "10", "x"]

    def test_without_labels_there_is_nothing_to_compare(self) -> None:
        assert compare_with_classes(assignments([0, 1])) is None

    @given(st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 5)), min_size=1, max_size=40))
    def test_accuracy_is_that_of_the_metrics(self, pairs: list[tuple[int, int]]) -> None:
        clusters, labels = np.array(pairs).T
        found = assignments(clusters, [str(label) for label in labels])
        result = compare_with_classes(found)
        assert result is not None
        assert result.accuracy == pytest.approx(clustering_accuracy(labels, clusters))
        assert result.counts.sum() == len(pairs)
        assert len(result.wrong) == len(pairs) - round(result.accuracy * len(pairs))


class TestAdvice:
    even = assignments([0, 1] * 10)

    def said(self, metrics=None, found=None, k=2, rank=10.0) -> str:
        items = advice(metrics or {}, found or self.even, k, rank, 64)
        return " ".join(item.said + item.help for item in items)

    def test_of_a_sound_run_there_is_none(self) -> None:
        assert self.said({"warnings": [], "label_free": {"connected_components": 2}}) == ""

    def test_the_run_s_own_come_first(self) -> None:
        items = advice({"warnings": ["one thing"]}, self.even, 30, 10.0, 64)
        assert items[0].said == "one thing"
        assert "collapsed" in items[1].said

    def test_collapse_is_said_once(self) -> None:
        own = "the representation has collapsed: its effective rank is 1.0 of 64"
        assert self.said({"warnings": [own]}, k=30).count("collapsed") == 1

    def test_of_very_many_warnings_some_are_said(self) -> None:
        items = advice({"warnings": [f"left out {i}" for i in range(5000)]}, self.even, 2, 10.0, 64)
        assert [item.said for item in items][-2:] == [
            "left out 19",
            "The run gave 4,980 more warnings; metrics.json has all.",
        ]

    def test_pieces(self) -> None:
        assert "5 pieces" in self.said({"label_free": {"connected_components": 5}})
        assert self.said({"label_free": {"connected_components": 2}}) == ""

    def test_sizes(self) -> None:
        found = assignments([0] * 50 + [1] * 10 + [2] * 10 + [3])
        said = self.said(found=found, k=5)
        assert "Cluster 0 has more than 3 times" in said
        assert "Cluster 3 has less than a fifth" in said
        assert "1 of 5 clusters is empty" in said

    def test_sizes_of_clusters_that_somebody_made_are_no_point(self) -> None:
        found = assignments([0] * 50 + [1] * 10 + [2] * 10 + [3])
        left = advice({}, found, 5, 10.0, 64, decided={3})
        assert [item.said[:9] for item in left] == ["Cluster 0"]
        assert not advice({}, found, 5, 10.0, 64, decided={0, 1, 2, 3})

    def test_no_other_number_is_advised_where_the_clusterer_finds_it(self) -> None:
        metrics = {"label_free": {"connected_components": 9}}
        found = assignments([0] * 50 + [1] * 10 + [2] * 10 + [3])
        left = advice(metrics, found, 4, 10.0, 64, finds_number=True)
        assert len(left) == 2
        assert all("options of the clusterer" in item.help for item in left)
        assert "n_clusters" not in "".join(item.help for item in left)

    def test_images_of_no_cluster(self) -> None:
        assert "2 of 10 (20\u00a0%) belong" in self.said(found=assignments([0, 1] * 4 + [-1, -1])).replace(
            "20.0", "20"
        )
        assert "No cluster has any members" in self.said(found=assignments([-1, -1]))

    def test_low_confidence_of_all_and_of_some(self) -> None:
        low = assignments([0, 1] * 5, confidence=[0.3] * 10)
        assert "confidence is only 30\u00a0%" in self.said(found=low)
        some = assignments([0, 1] * 5, confidence=[0.9, 0.4] * 5)
        assert "In cluster 1, " in self.said(found=some)

    def test_a_single_member_is_not_doubted_for_want_of_others(self) -> None:
        found = assignments([0] * 5 + [1], confidence=[0.9] * 5 + [0])
        said = self.said(found=found)
        assert "Cluster 1 has a single member: a confidence of 0\u00a0% says nothing there." in said
        assert "In cluster" not in said
        copied = assignments([0, 1, 2, 2], confidence=[0] * 4)
        said = self.said({"copies": 1}, found=copied)
        assert "Clusters 0–2 have a single member, apart from copies: a confidence of" in said
        assert "mean confidence" not in said
        assert "confidence of the others is only 0\u00a0%" in self.said(found=copied)


class TestHeat:
    def test_blocks_follow_the_clusters(self) -> None:
        blocks = heat(FOUR, np.ones(4)).blocks
        assert [(block.number, block.start, block.end) for block in blocks] == [(0, 0, 0.5), (1, 0.5, 1)]

    def test_those_of_no_cluster_come_last(self) -> None:
        found = heat(graph(FOUR.matrix.toarray(), [-1, 0, 0, -1]), np.ones(4))
        assert [(block.number, block.end) for block in found.blocks] == [(0, 0.5)]

    @given(st.lists(st.integers(-1, 6), min_size=2, max_size=60))
    def test_ink_lies_in_the_blocks_where_clusters_keep_to_themselves(self, clusters: list[int]) -> None:
        numbers = np.array(clusters)
        same = (numbers[:, None] == numbers[None]) & (numbers[:, None] >= 0)
        found = heat(graph(same * (1 - np.eye(len(numbers))), clusters), np.ones(len(numbers)))
        data = base64.b64decode(found.uri.partition(",")[2])
        ink = np.asarray(Image.open(BytesIO(data)))[..., 3] > 0
        inside = np.zeros_like(ink)
        for block in found.blocks:
            part = slice(round(block.start * found.bins), max(round(block.end * found.bins), 1))
            inside[part, part] = True
        narrow = any(block.end == block.start for block in found.blocks)
        assert narrow or not (ink & ~inside).any()

    def test_a_large_table_becomes_a_small_picture(self) -> None:
        data = base64.b64decode(table_heat(np.eye(640)).partition(",")[2])
        ink = np.asarray(Image.open(BytesIO(data)))[..., 3]
        assert np.array_equal(ink, 255 * np.eye(320))

    def test_no_affinity_at_all_is_a_picture_too(self) -> None:
        assert heat(graph(np.zeros((3, 3)), [0, 0, 1]), np.ones(3)).uri.startswith("data:image/png")


def test_numbers_come_first_by_value_however_long() -> None:
    names = ["b", "10", "9" * 5000, "9", "a", "٣"]
    assert sorted(names, key=natural) == ["٣", "9", "10", "9" * 5000, "a", "b"]

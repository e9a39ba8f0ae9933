"""Colours, words, charts, pictures and the map."""

from __future__ import annotations

import base64
import unicodedata
from io import BytesIO
from itertools import combinations
from math import dist

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import sparse

from ebsc_core.curation.graph import Graph
from ebsc_core.data.features.rows import HeldRows
from ebsc_core.report import charts, formatting
from ebsc_core.report.map import MAX_POINTS, SIDE, lay_out
from ebsc_core.report.palette import DARK, LIGHT, colors, contrast
from ebsc_core.report.thumbnails import gallery, sheet


def lab(color: str) -> tuple[float, float, float]:
    """Convert ``#rrggbb`` to CIELAB (CIE 15:2004, D65)."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
    xyz = np.array(to_xyz) @ linear / (0.95047, 1, 1.08883)
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116).tolist()
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


class TestPalette:
    @pytest.mark.parametrize("n", [1, 2, 3, 10, 12, 13, 38, 100])
    def test_every_color_is_seen_on_both_pages(self, n: int) -> None:
        found = colors(n)
        assert len(found) == n
        assert all(contrast(color, page) >= 3 for color in found for page in (LIGHT, DARK))
        assert len(set(found)) == n

    @pytest.mark.parametrize(
        ("n", "least"), [(3, 50), (8, 20), (12, 15), (20, 15), (30, 12), (40, 9), (100, 6)]
    )
    def test_colors_can_be_told_apart(self, n: int, least: float) -> None:
        """In CIELAB, where 2.3 is the least that can be seen. Successive colours differ most clearly."""
        points = [lab(color) for color in colors(n)]
        assert min(dist(*pair) for pair in combinations(points, 2)) > least
        assert min(map(dist, points, points[1:])) > 35
        assert min(dist(point, lab(grey)) for point in points for grey in ("#8a919c", "#7d8591")) > least

    def test_a_cluster_more_leaves_the_other_colors_alone(self) -> None:
        assert colors(41)[:40] == colors(40)
        assert len(colors(5000)) == 5000

    def test_distances_are_those_of_cielab(self) -> None:
        assert lab("#ffffff") == pytest.approx((100, 0, 0), abs=0.02)
        assert lab("#ff0000") == pytest.approx((53.24, 80.09, 67.2), abs=0.02)

    def test_contrast_is_that_of_the_recommendation(self) -> None:
        assert contrast("#000000", "#ffffff") == pytest.approx(21)
        assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


class TestWords:
    def test_what_cannot_be_seen_is_shown(self) -> None:
        assert formatting.shown("a\nb") == "a␊b"
        assert formatting.shown(b"a\xff".decode("utf-8", "surrogateescape")) == "a\ufffd"
        assert formatting.shown("a\u202eb\x7f") == "a\ufffdb␡"
        assert formatting.shown("a\u2028b\x85") == "a\ufffdb\ufffd"

    @pytest.mark.parametrize(
        "text",
        [
            '<b>"x"</b> é 猫',
            "43.7\u00a0%",
            "Screenshot 2026-01-02 at 3.04.05\u202fPM.png",
            unicodedata.normalize("NFD", "Zoë à l'été.jpg"),
            "family \U0001f468\u200d\U0001f469\u200d\U0001f467.png",
            "soft\u00adhyphen \u3000 \uf8ff",
        ],
    )
    def test_names_of_files_and_figures_stay_as_they_are(self, text: str) -> None:
        assert formatting.shown(text) == text

    @given(st.characters(codec="utf-8"))
    def test_only_what_breaks_or_disguises_a_line_is_replaced(self, character: str) -> None:
        control = unicodedata.category(character) in ("Cc", "Zl", "Zp")
        turning = "\u202a" <= character <= "\u202e" or "\u2066" <= character <= "\u2069"
        assert (formatting.shown(character) != character) == (control or turning)

    @given(st.text())
    def test_whatever_is_shown_can_be_written(self, text: str) -> None:
        assert len(formatting.short(text).splitlines()) <= 1
        assert len(formatting.short(text)) <= formatting.LONGEST
        formatting.shown(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")).encode()

    def test_long_names_keep_their_ends(self) -> None:
        assert formatting.short("folder/" + 100 * "x" + ".jpg").startswith("folder/")
        assert formatting.short("folder/" + 100 * "x" + ".jpg").endswith(".jpg")

    def test_figures(self) -> None:
        assert formatting.percent(0.954) == "95\u00a0%"
        assert formatting.percent(0.954, 1) == "95.4\u00a0%"
        assert formatting.number(12345) == "12,345"
        assert formatting.number(0.4812) == "0.481"
        assert formatting.number(-0.0441) == "−0.044"
        assert formatting.percent(None) == formatting.number(None) == "–"
        assert formatting.ranges([0, 1, 2, 7]) == "0–2 and 7"
        assert formatting.ranges([4]) == "4"
        assert formatting.listed(list("abcdefghijkl"), 3) == "a, b, c and 9 more"


class TestCharts:
    @given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
    def test_ticks_enclose_what_they_are_for(self, low: float, extent: float) -> None:
        found = charts.ticks(low, low + extent)
        slack = 1e-6 * max(1.0, abs(low), extent)
        assert found[0] <= low + slack
        assert found[-1] >= low + extent - slack
        assert 2 <= len(found) <= 9
        assert found == sorted(set(found))

    def test_lines_lie_in_the_drawing(self) -> None:
        chart = charts.line_chart("a", "A", "", "x", [1, 2, 3], {"a": [5.0, 1.0, 3.0]})
        (series,) = chart.series
        xs, ys = zip(*series.points, strict=True)
        assert list(xs) == sorted(xs)
        assert xs[0] == charts.LEFT
        assert xs[-1] == charts.WIDTH - charts.RIGHT
        assert charts.TOP <= min(ys) < max(ys) <= charts.HEIGHT - charts.BOTTOM
        assert ys[1] == max(ys)  # downwards

    def test_training(self) -> None:
        history = [
            {"stage": "warm-up", "loss": 4.0, "effective_rank": 9.0, "joint_error": None},
            {"stage": "joint", "loss": 3.0, "effective_rank": 8.0, "joint_error": 0.5},
            {"stage": "joint", "loss": 2.0, "effective_rank": 7.0, "joint_error": 0.4},
        ]
        loss, rank, error = charts.training_charts(history)
        assert (loss.x_values, loss.series[0].values) == ([1, 2, 3], [4, 3, 2])
        assert [name for *_, name in loss.bands] == ["joint phase"]
        assert rank.y_ticks[0][1] == "0"
        assert (error.x_values, error.bands) == ([2, 3], [])
        assert charts.training_charts([]) == []

    def test_the_gap_is_marked(self) -> None:
        chart = charts.eigenvalue_chart([1.0, 0.9, 0.3, 0.2], 2)
        assert chart is not None
        assert "After number 2 they fall by 0.6000" in chart.said
        (at, width, name), points = chart.bands[0], chart.series[0].points
        assert (at, round(at + width, 1), name) == (points[1][0], points[2][0], "gap")
        assert charts.eigenvalue_chart([], 2) is None
        beyond = charts.eigenvalue_chart([1.0, 0.9], 2)
        assert beyond is not None
        assert beyond.bands == []

    def test_numbers_of_clusters_that_were_tried(self) -> None:
        tried = [{"k": 3, "eigengap": 0.2, "stability": 0.9}, {"k": 2, "eigengap": 0.1, "stability": None}]
        (chart,) = charts.candidate_charts({"chosen": 3, "candidates": tried})
        assert (chart.x_values, chart.series[0].values) == ([2, 3], [0.1, 0.2])
        assert "3 was chosen" in chart.said
        for absent in (None, 5, {}, {"chosen": 2, "candidates": []}, {"candidates": [3]}):
            assert charts.candidate_charts(absent) == []


def noise(n: int, side: int) -> dict[int, Image.Image]:
    generator = np.random.default_rng(0)
    return {i: Image.fromarray(generator.integers(0, 256, (side, side, 3), np.uint8)) for i in range(n)}


class TestPictures:
    def test_a_gallery_keeps_to_its_budget(self) -> None:
        found = gallery(noise(40, 96), budget=60_000)
        assert list(found) == list(range(40))
        assert sum(len(uri) for uri in found.values()) <= 60_000 * 4 / 3 + 40 * 30

    def test_small_pictures_lose_nothing(self) -> None:
        pictures = noise(3, 8)
        for key, uri in gallery(pictures).items():
            decoded = Image.open(BytesIO(base64.b64decode(uri.partition(",")[2])))
            assert np.array_equal(np.asarray(decoded), np.asarray(pictures[key]))

    def test_a_sheet_holds_what_there_is_in_order(self) -> None:
        pictures = noise(5, 8)
        found = sheet(pictures, [4, 9, 0])
        assert found is not None
        assert (found.held, found.columns, found.width) == ([0, 2], 2, 8)
        whole = np.asarray(Image.open(BytesIO(base64.b64decode(found.uri.partition(",")[2]))))
        assert np.array_equal(whole[:8, :8], np.asarray(pictures[4]))
        assert np.array_equal(whole[:8, 8:], np.asarray(pictures[0]))
        assert sheet(pictures, [9]) is None

    def test_a_sheet_keeps_to_its_budget(self) -> None:
        found = sheet(noise(400, 48), range(400), budget=100_000)
        assert found is not None
        assert len(found.uri) <= 100_000 * 4 / 3 + 30
        assert len(found.held) == 400

    def test_no_pictures_make_no_gallery(self) -> None:
        assert gallery({}) == {}


class TestLayout:
    def rows(self, n: int) -> tuple[HeldRows, np.ndarray]:
        clusters = np.arange(n) % 3
        centers = torch.eye(8)[torch.from_numpy(clusters)]
        return HeldRows(centers + 0.05 * torch.randn(n, 8)), clusters

    def test_what_is_alike_lies_together(self) -> None:
        rows, clusters = self.rows(90)
        found = lay_out(rows, None, 90, 0)
        assert found is not None
        assert found.points.min() >= 0
        assert found.points.max() <= SIDE
        distances = np.linalg.norm(found.points[:, None] - found.points[None], axis=2)
        np.fill_diagonal(distances, np.inf)
        assert (clusters[distances.argmin(axis=1)] == clusters).mean() > 0.95
        assert 1 < found.rank < 8

    def test_the_same_seed_gives_the_same_map(self) -> None:
        rows, _ = self.rows(60)
        one, two = lay_out(rows, None, 60, 1), lay_out(rows, None, 60, 1)
        assert one is not None
        assert two is not None
        assert np.array_equal(one.points, two.points)

    def test_neighbors_have_the_most_affinity(self) -> None:
        rows, clusters = self.rows(6)
        dense = np.zeros((6, 6))
        dense[0, 1], dense[0, 2], dense[3, 4] = 1, 2, 3
        found = lay_out(rows, Graph(sparse.csr_matrix(dense + dense.T), np.arange(6), clusters), 6, 0)
        assert found is not None
        assert found.neighbors == [[2, 1], [0], [0], [4], [3], []]

    def test_odd_rows_have_a_map(self) -> None:
        for rows in (torch.ones(10, 4), torch.randn(3, 5), torch.randn(20, 1), torch.zeros(5, 2)):
            found = lay_out(HeldRows(rows), None, len(rows), 0)
            assert found is not None
            assert np.isfinite(found.points).all()
        assert lay_out(HeldRows(torch.randn(2, 4)), None, 2, 0) is None

    def test_many_rows_are_sampled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ebsc_core.report.map.MAX_POINTS", 50)
        rows, _ = self.rows(200)
        found = lay_out(rows, None, 200, 0)
        assert found is not None
        assert len(found.points) == len(set(found.positions.tolist())) == 50
        assert MAX_POINTS == 2000

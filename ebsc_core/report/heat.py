"""The affinity sorted by cluster, as a picture of few pixels."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from ebsc_core.report.clusters import Graph
from ebsc_core.report.pictures import data_uri

MOST_BINS = 320
# Entries that fall into a pixel of a cluster's block, on average.
ENTRIES = 8
# An ink that stands out on white and on black; how much there is of it says how much affinity.
INK = (66, 112, 214)


@dataclass(frozen=True)
class Block:
    """Where a cluster lies along the sides of the picture, as shares of their length."""

    number: int
    start: float
    end: float


@dataclass(frozen=True)
class Heat:
    """The picture, and its clusters in order; images of no cluster come last."""

    uri: str
    bins: int
    rows: int
    blocks: list[Block]


def heat(graph: Graph, confidence: np.ndarray) -> Heat:
    """The affinity, its rows sorted by cluster and within one by ``confidence`` ``(M,)``.

    A pixel is the sum of what falls into it; its ink is the square root of that, so that weak ties are seen.
    """
    n = len(graph.clusters)
    bins = min(n, _bins(graph))
    last = np.where(graph.clusters < 0, np.iinfo(np.int64).max, graph.clusters)
    order = np.lexsort((-confidence, last))
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n) * bins // n
    rows = np.repeat(place, np.diff(graph.matrix.indptr))
    pixel = rows * bins + place[graph.matrix.indices]
    sums = np.bincount(pixel, weights=graph.matrix.data, minlength=bins**2)
    strength = np.sqrt(np.maximum(sums, 0)).reshape(bins, bins)
    full = np.quantile(strength[strength > 0], 0.99) if strength.any() else 1.0
    pixels = np.empty((bins, bins, 4), dtype=np.uint8)
    pixels[..., :3] = INK
    pixels[..., 3] = np.rint(255 * np.minimum(strength / full, 1))
    return Heat(data_uri(_png(pixels), "png"), bins, n, _blocks(graph.clusters, n))


def _bins(graph: Graph) -> int:
    """So many that within clusters some entries fall into each pixel: fewer would be noise."""
    k = max(len(np.unique(graph.clusters)), 1)
    return int(np.clip(np.sqrt(graph.matrix.nnz * k / ENTRIES), 1, MOST_BINS))


def table_heat(counts: np.ndarray) -> str:
    """A table too large to print as a picture, each row scaled to its largest entry."""
    shares = counts / np.maximum(counts.max(axis=1, keepdims=True), 1)
    pixels = np.empty((*counts.shape, 4), dtype=np.uint8)
    pixels[..., :3] = INK
    pixels[..., 3] = np.rint(255 * np.sqrt(shares))
    return data_uri(_png(pixels), "png")


def _blocks(clusters: np.ndarray, n: int) -> list[Block]:
    numbers, sizes = np.unique(clusters[clusters >= 0], return_counts=True)
    ends = np.cumsum(sizes) / n
    return [
        Block(int(number), float(end - size / n), float(end))
        for number, size, end in zip(numbers, sizes, ends, strict=True)
    ]


def _png(pixels: np.ndarray) -> bytes:
    # A few hundred levels of one ink: a palette would not be smaller.
    file = BytesIO()
    Image.fromarray(pixels, "RGBA").save(file, "PNG", optimize=True)
    return file.getvalue()

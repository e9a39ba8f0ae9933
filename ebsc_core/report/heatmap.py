"""The affinity sorted by cluster, as a picture of few pixels."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from ebsc_core.report.clusters import Graph
from ebsc_core.report.thumbnails import data_uri

MIN_BINS, MAX_BINS = 64, 320
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
    blocks = _blocks(graph.clusters, bins)
    place = _places(graph.clusters, confidence, blocks, bins)
    rows = np.repeat(place, np.diff(graph.matrix.indptr))
    pixel = rows * bins + place[graph.matrix.indices]
    sums = np.bincount(pixel, weights=graph.matrix.data, minlength=bins**2)
    strength = np.sqrt(np.maximum(sums, 0)).reshape(bins, bins)
    full = np.quantile(strength[strength > 0], 0.99) if strength.any() else 1.0
    pixels = np.empty((bins, bins, 4), dtype=np.uint8)
    pixels[..., :3] = INK
    pixels[..., 3] = np.rint(255 * np.minimum(strength / full, 1))
    return Heat(data_uri(_png(pixels), "png"), bins, n, blocks)


def _bins(graph: Graph) -> int:
    """So many that within clusters some entries fall into each pixel: fewer would be noise."""
    k = max(len(np.unique(graph.clusters)), 1)
    return int(np.clip(np.sqrt(graph.matrix.nnz * k / ENTRIES), MIN_BINS, MAX_BINS))


def table_heat(counts: np.ndarray) -> str:
    """A table too large to print as a picture, each row scaled to its largest entry.

    Of more than ``MAX_BINS`` rows or columns several share a pixel.
    """
    for axis in (0, 1):
        bins = min(counts.shape[axis], MAX_BINS)
        counts = np.add.reduceat(counts, np.arange(bins) * counts.shape[axis] // bins, axis=axis)
    shares = counts / np.maximum(counts.max(axis=1, keepdims=True), 1)
    pixels = np.empty((*counts.shape, 4), dtype=np.uint8)
    pixels[..., :3] = INK
    pixels[..., 3] = np.rint(255 * np.sqrt(shares))
    return data_uri(_png(pixels), "png")


def _blocks(clusters: np.ndarray, bins: int) -> list[Block]:
    """Each cluster's share of the sides, from one whole pixel to another."""
    numbers, sizes = np.unique(clusters[clusters >= 0], return_counts=True)
    ends = np.rint(np.cumsum(sizes) * bins / len(clusters)) / bins
    starts = np.concatenate([[0.0], ends])[: len(ends)]
    return [Block(int(n), float(a), float(b)) for n, a, b in zip(numbers, starts, ends, strict=True)]


def _places(clusters: np.ndarray, confidence: np.ndarray, blocks: list[Block], bins: int) -> np.ndarray:
    """``(M,)``, the pixel of each row; those of no cluster share what is left at the end."""
    place = np.empty(len(clusters), dtype=np.int64)
    rest = Block(-1, blocks[-1].end if blocks else 0.0, 1.0)
    for block in [*blocks, rest]:
        members = np.flatnonzero(clusters == block.number)
        order = members[np.argsort(-confidence[members], kind="stable")]
        first, width = round(block.start * bins), round((block.end - block.start) * bins)
        place[order] = first + np.arange(len(order)) * width // max(len(order), 1)
    return np.minimum(place, bins - 1)


def _png(pixels: np.ndarray) -> bytes:
    # A few hundred levels of one ink: a palette would not be smaller.
    file = BytesIO()
    Image.fromarray(pixels, "RGBA").save(file, "PNG", optimize=True)
    return file.getvalue()

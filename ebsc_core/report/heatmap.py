"""Draw the affinity, sorted by cluster, as a small picture."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from ebsc_core.report.thumbnails import data_uri
from ebsc_core.runs.store.graph import Graph

MIN_BINS, MAX_BINS = 64, 320
# Average number of entries per pixel of a cluster's block.
ENTRIES = 8
# A colour that is visible on white and on black; its opacity shows the affinity.
INK = (66, 112, 214)


@dataclass(frozen=True)
class Block:
    """Hold the place of a cluster along the sides of the picture, as shares of their length."""

    number: int
    start: float
    end: float


@dataclass(frozen=True)
class Heat:
    """Hold the picture and its clusters in order; images of no cluster come last."""

    uri: str
    bins: int
    rows: int
    blocks: list[Block]


def heat(graph: Graph, confidence: np.ndarray) -> Heat:
    """Draw the affinity with its rows sorted by cluster, and within a cluster by ``confidence`` ``(M,)``.

    A pixel sums its entries. Its opacity is the square root of the sum, so that weak ties are visible.
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
    """Return the number of bins that gives each pixel of a block several entries, to avoid noise."""
    k = max(len(np.unique(graph.clusters)), 1)
    return int(np.clip(np.sqrt(graph.matrix.nnz * k / ENTRIES), MIN_BINS, MAX_BINS))


def table_heat(counts: np.ndarray) -> str:
    """Draw a table that is too large to print as a picture; each row is scaled to its largest entry.

    If there are more than ``MAX_BINS`` rows or columns, several of them share a pixel.
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
    """Return the range of each cluster along the sides, rounded to whole pixels."""
    numbers, sizes = np.unique(clusters[clusters >= 0], return_counts=True)
    ends = np.rint(np.cumsum(sizes) * bins / len(clusters)) / bins
    starts = np.concatenate([[0.0], ends])[: len(ends)]
    return [Block(int(n), float(a), float(b)) for n, a, b in zip(numbers, starts, ends, strict=True)]


def _places(clusters: np.ndarray, confidence: np.ndarray, blocks: list[Block], bins: int) -> np.ndarray:
    """Return the pixel ``(M,)`` of each row; rows of no cluster share the pixels left at the end."""
    place = np.empty(len(clusters), dtype=np.int64)
    rest = Block(-1, blocks[-1].end if blocks else 0.0, 1.0)
    for block in [*blocks, rest]:
        members = np.flatnonzero(clusters == block.number)
        order = members[np.argsort(-confidence[members], kind="stable")]
        first, width = round(block.start * bins), round((block.end - block.start) * bins)
        place[order] = first + np.arange(len(order)) * width // max(len(order), 1)
    return np.minimum(place, bins - 1)


def _png(pixels: np.ndarray) -> bytes:
    # The picture has a few hundred levels of one colour; a palette would not make the file smaller.
    file = BytesIO()
    Image.fromarray(pixels, "RGBA").save(file, "PNG", optimize=True)
    return file.getvalue()

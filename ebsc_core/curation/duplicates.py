"""Find images that are equal, and images that are nearly so: other sizes, compressions and slight crops.

Pairs are proposed by nearest neighbours, in the thumbnails and, of a run, in its rows. They are accepted by
their thumbnails (:mod:`ebsc_core.curation.likeness`): a network that was trained with strong views calls
different images alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ebsc_core.clustering.search import Found
from ebsc_core.config.schema import SearchOptions
from ebsc_core.curation.likeness import Likeness
from ebsc_core.curation.neighbors import bulk_end, nearest
from ebsc_core.curation.originals import Originals, Size
from ebsc_core.curation.thumbnails import Thumbnails, content_of_rows
from ebsc_core.data.features.rows import Rows
from ebsc_core.utils.errors import ConfigError

# Pairs of each image with so many nearest ones are compared.
NEIGHBORS = 8
# The threshold is never lower. On CIFAR-10, pictures of different things reach 0.78, and 5 % crops in another
# size and compression stay above 0.9 (benchmarks/duplicates.py).
MIN_THRESHOLD = 0.8
# Fewer distinct images have no bulk.
MIN_BULK = 50
# Of so few rows, only equal ones are duplicates: rows of one cluster may be as similar as 0.99.
SURE_OF_ROWS = 0.999


@dataclass(frozen=True)
class Duplicate:
    """Hold one image of a group of duplicates."""

    position: int
    """The position among all images."""
    image: str
    """The name."""
    kind: str
    """``keep`` for the largest image of the group, ``exact`` for one that equals an image before it, else
    ``near``."""
    similarity: float
    """The largest similarity to another image of the group, at most 1; 1 for the image to keep."""


@dataclass(frozen=True)
class Pairs:
    """Hold the pairs of distinct images that were compared, the most similar first."""

    first: np.ndarray
    """``(P,)``, positions among all images; smaller than those in ``second``."""
    second: np.ndarray
    """``(P,)``."""
    similarity: np.ndarray
    """``(P,)`` float32."""


@dataclass(frozen=True)
class Duplicates:
    """Hold all groups of duplicates."""

    groups: list[list[Duplicate]]
    """The largest groups first; in a group, the image to keep first, then the most similar ones."""
    threshold: float
    """Pairs of at least this similarity are near duplicates."""
    pairs: Pairs
    """All pairs that were compared."""

    def number(self, kind: str) -> int:
        """Count the images of a kind, ``exact`` or ``near``."""
        return sum(one.kind == kind for group in self.groups for one in group)


def check_threshold(threshold: float | None) -> None:
    """Raise a ConfigError unless the threshold is None or a similarity in (0, 1]."""
    if threshold is not None and not 0 < threshold <= 1:
        raise ConfigError(f"`threshold` is {threshold:g}; give a similarity above 0 and at most 1")


def duplicate_images(
    thumbnails: Thumbnails,
    names: Sequence[str],
    rows: Tensor | None = None,
    threshold: float | None = None,
    search: SearchOptions | None = None,
    seed: int = 0,
    originals: Originals | None = None,
) -> Duplicates:
    """Find groups of duplicates among ``N`` images.

    Parameters
    ----------
    thumbnails : Thumbnails
    names : sequence of str
        The names of the images.
    rows : Tensor of shape (M, D), optional
        Rows of unit length of the first ``M`` images, whose neighbours are compared as well.
    threshold : float, optional
        Images at least so similar are near duplicates; by default, see
        :func:`ebsc_core.curation.neighbors.bulk_end`.
    search : SearchOptions, optional
    seed : int
        Decides the random numbers of an approximate search.
    originals : Originals, optional
        The files of the images. The largest image of a group is the one to keep, and images are equal only
        if all pixels of their files are.

    Raises
    ------
    ConfigError
        If the threshold is not in (0, 1].
    """
    check_threshold(threshold)
    search, likeness = search or SearchOptions(), Likeness(thumbnails.gray)
    distinct = np.unique(_first_of_each(thumbnails.content))
    proposed = [_proposed(likeness.rows, distinct, search, seed)]
    if rows is not None:
        proposed.append(_proposed(rows, distinct[distinct < len(rows)], search, seed))
    first, second = np.unique(np.concatenate(proposed), axis=0).T
    pairs = _sorted(first, second, likeness.similarities(first, second))
    return _grouped(thumbnails.content, names, pairs, _threshold(pairs, MIN_THRESHOLD, threshold), originals)


def duplicate_rows(
    rows: Rows,
    names: Sequence[str],
    threshold: float | None = None,
    search: SearchOptions | None = None,
    seed: int = 0,
) -> Duplicates:
    """Find groups of equal and nearly equal rows; the similarity is the cosine, and no image is looked at.

    Parameters and errors are those of :func:`duplicate_images`.
    """
    check_threshold(threshold)
    content, held = content_of_rows(rows), rows.held()
    proposed = _proposed(held, np.unique(_first_of_each(content)), search or SearchOptions(), seed)
    first, second = np.unique(proposed, axis=0).T
    cosines = (held[torch.from_numpy(first)] * held[torch.from_numpy(second)]).sum(dim=1)
    pairs = _sorted(first, second, cosines.cpu().numpy())
    return _grouped(content, names, pairs, _threshold(pairs, SURE_OF_ROWS, threshold), None)


def _proposed(rows: Tensor, distinct: np.ndarray, search: SearchOptions, seed: int) -> np.ndarray:
    """Pair each distinct row with its nearest ones: positions ``(P, 2)``, the smaller one first."""
    if len(distinct) < 2:
        return np.empty((0, 2), np.int64)
    found: Found = nearest(rows[torch.from_numpy(distinct)], NEIGHBORS, search, seed)
    query, place = (found.scores > -torch.inf).nonzero(as_tuple=True)
    ends = torch.stack([query, found.indices[query, place]], dim=1)
    return np.sort(distinct[ends.numpy()], axis=1)


def _sorted(first: np.ndarray, second: np.ndarray, similarity: np.ndarray) -> Pairs:
    order = np.argsort(-similarity, kind="stable")
    return Pairs(first[order], second[order], similarity[order])


def _grouped(
    content: np.ndarray,
    names: Sequence[str],
    pairs: Pairs,
    threshold: float,
    originals: Originals | None,
) -> Duplicates:
    near, first = pairs.similarity >= threshold, _first_of_each(content)
    starts = np.concatenate([pairs.first[near], np.arange(len(content))])
    group = _components(starts, np.concatenate([pairs.second[near], first]), len(content))
    best = np.zeros(len(content))
    for end in (pairs.first, pairs.second):
        np.maximum.at(best, end[near], pairs.similarity[near])
    order = np.argsort(group, kind="stable")
    order = order[np.bincount(group)[group[order]] > 1]
    found = np.split(order, np.flatnonzero(np.diff(group[order])) + 1) if len(order) else []
    groups = [_ordered(members.tolist(), content, best[first], names, originals) for members in found]
    return Duplicates(sorted(groups, key=len, reverse=True), threshold, pairs)


def _threshold(pairs: Pairs, of_few: float, given: float | None) -> float:
    """Return the given threshold, or the one that follows from the similarity of each to its nearest one.

    Where there are too few for that, it is ``of_few``.
    """
    if given is not None:
        return given
    positions, at = np.unique(np.concatenate([pairs.first, pairs.second]), return_inverse=True)
    if len(positions) < MIN_BULK:
        return of_few
    largest = np.full(len(positions), -1.0)
    np.maximum.at(largest, at, np.tile(pairs.similarity, 2))
    return max(MIN_THRESHOLD, bulk_end(largest))


def _first_of_each(content: np.ndarray) -> np.ndarray:
    """Return for each image the position of the first one of the same content."""
    _, first, number = np.unique(content, return_index=True, return_inverse=True)
    return first[number.reshape(-1)]


def _components(starts: np.ndarray, ends: np.ndarray, n: int) -> np.ndarray:
    links = sparse.csr_matrix((np.ones(len(starts), np.int8), (starts, ends)), shape=(n, n))
    return connected_components(links, directed=False)[1]


def _ordered(
    members: list[int],
    content: np.ndarray,
    best: np.ndarray,
    names: Sequence[str],
    originals: Originals | None,
) -> list[Duplicate]:
    """Order a group: the image to keep, its equals, then the most similar ones, each with its equals."""
    sizes = {member: originals.size(names[member]) if originals else Size() for member in members}
    shared = Counter(content[members].tolist())
    keep = min(members, key=lambda member: (sizes[member].order, member))

    def place(member: int) -> tuple[bool, float, int, tuple[int, int, bool], int]:
        mine = content[member]
        return (mine != content[keep], -best[member], mine, sizes[member].order, member)

    contents, identities = set(), set()
    result = []
    for member in sorted(members, key=place):
        mine = content[member]
        # Different images may become equal where they are brought to one size.
        size, unsure = sizes[member], shared[mine] > 1
        pixels = originals.pixels(names[member], size) if originals and unsure else b""
        identity = (mine, size.width, size.height, pixels)
        kind = "keep" if member == keep else "exact" if identity in identities else "near"
        alike = 1.0 if member == keep or mine in contents else float(best[member])
        contents.add(mine)
        identities.add(identity)
        result.append(Duplicate(member, names[member], kind, alike))
    return result

"""Find copies among rows, so that they do not crowd out each other's neighbours.

A row is best expressed by its own copy. So a row that occurs more often than a row has coefficients would
have no other neighbour: its copies would be a piece of the graph of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from ebsc_core.data.features.rows import Rows

# Two rows are copies if their distance is below this share of the mean distance. Neighbouring photographs
# of one turning object are 1.5 % of it apart, the nearest rows of other data 7 % or more (docs/decisions.md).
NEAR = 0.01
# If near rows were copies, and fewer distinct rows than this share were left, then such distances are the
# structure of the rows. Only equal rows are copies then.
MIN_DISTINCT = 0.1
# Unit-length rows that should be equal differ by no more than rounding.
EQUAL = 1e-6
PAIRS = 4096
# Two rows at the limit share a cell of one projection with a probability of 95 %, and a cell of at least one
# table with 98.7 %.
TABLES, PROJECTIONS, CELL = 4, 8, 16.0
# Number of entries of rows compared at once.
BLOCK_ENTRIES = 1 << 24


@dataclass(frozen=True)
class Copies:
    """Hold which of ``M`` rows are copies of which; in each group, the first row stands for all."""

    stands_for: np.ndarray
    """``(M,)``: the position of the row that stands for each row; its own if it has no earlier copy."""

    @property
    def distinct(self) -> np.ndarray:
        """The positions ``(R,)`` of the rows that stand for themselves, in ascending order."""
        return np.flatnonzero(self.stands_for == np.arange(len(self.stands_for)))

    @property
    def among_distinct(self) -> np.ndarray:
        """Which of the distinct rows, counted from 0, stands for each row: ``(M,)``."""
        return np.searchsorted(self.distinct, self.stands_for)

    @property
    def count(self) -> int:
        """The number of rows that another row stands for."""
        return len(self.stands_for) - len(self.distinct)

    def describe(self) -> str:
        """Say in one line how many rows are copies, and what is done with them."""
        rows = "1 row is a copy" if self.count == 1 else f"{self.count} rows are copies"
        return f"{rows} of others (equal, or nearly): a row and its copies are in one cluster"

    def spread(self, graph: sparse.csr_matrix) -> sparse.csr_matrix:
        """Turn the affinity of the distinct rows ``(R, R)`` into one of all rows ``(M, M)``.

        A copy is connected with the row that stands for it, and with no other. The copies of one row weigh
        ½ together, as a row's own coefficients do: a hundred copies hold a row no faster than one.
        """
        m, distinct = len(self.stands_for), self.distinct
        found = graph.tocoo()
        copy = np.flatnonzero(self.stands_for != np.arange(m))
        first = self.stands_for[copy]
        weight = 0.5 / np.bincount(first, minlength=m)[first]
        rows = np.concatenate([distinct[found.row], copy, first])
        columns = np.concatenate([distinct[found.col], first, copy])
        entries = np.concatenate([found.data, weight, weight]).astype(graph.dtype)
        spread = sparse.csr_matrix((entries, (rows, columns)), shape=(m, m))
        spread.sort_indices()
        return spread


def find_copies(rows: Rows, positions: np.ndarray, seed: int) -> Copies | None:
    """Find equal and nearly equal rows at positions ``(M,)``; None if there are none.

    Rows are hashed: random projections are cut into cells (Datar et al., "Locality-sensitive hashing scheme
    based on p-stable distributions", 2004), and rows beside each other in a cell are compared. This finds
    equal rows, and most pairs within the limit, in a time that is linear in the rows. No copy is farther
    than the limit from the row that stands for it.

    Parameters
    ----------
    rows : Rows
        Unit-length rows; they are read in blocks.
    positions : ndarray of shape (M,)
        In ascending order.
    seed : int
        Draws the projections, and the pairs that tell the mean distance between two rows.
    """
    numbers = np.random.default_rng(seed)
    directions = numbers.standard_normal((rows.width, TABLES * PROJECTIONS), np.float32)
    projected = np.empty((len(positions), TABLES * PROJECTIONS), np.float32)
    for start, block in rows.blocks():
        first, last = np.searchsorted(positions, [start, start + len(block)])
        wanted = torch.from_numpy(positions[first:last] - start).to(block.device)
        projected[first:last] = (block[wanted] @ torch.from_numpy(directions).to(block)).cpu().numpy()
    pairs = positions[numbers.integers(len(positions), size=(2, PAIRS))]
    apart = _distances(rows, *pairs)
    limit = max(EQUAL, NEAR * float(apart.mean()))
    # Equal rows first: they are copies even where a chain of near rows leads to one that is too far.
    equal = _joined(rows, positions, projected, EQUAL, numbers)
    kept = equal.distinct
    near = _joined(rows, positions[kept], projected[kept], limit, numbers)
    copies = Copies(kept[near.stands_for][equal.among_distinct])
    if len(copies.distinct) < MIN_DISTINCT * len(positions):
        copies = equal
    return copies if copies.count else None


def _joined(
    rows: Rows, positions: np.ndarray, projected: np.ndarray, limit: float, numbers: np.random.Generator
) -> Copies:
    """Join rows whose distance is at most ``limit``."""
    m, n_projections = projected.shape
    shifts = numbers.random((n_projections,), np.float32)
    factors = np.bitwise_or(numbers.integers(np.iinfo(np.int64).max, size=n_projections), 1)
    found = []
    for table in np.split(np.arange(n_projections), TABLES):
        cells = np.floor(projected[:, table] / (CELL * limit) + shifts[table]).astype(np.int64)
        keys = (cells * factors[table]).sum(axis=1)  # wraps around, as hashes do
        # Within a cell by a projection: it may hold many rows, and equal ones must be beside each other.
        order = np.lexsort((projected[:, table[0]], keys))
        at = np.flatnonzero(np.diff(keys[order]) == 0)
        found.append(np.sort(np.stack([order[at], order[at + 1]]), axis=0))
    one, other = np.unique(np.concatenate(found, axis=1), axis=1)
    near = _distances(rows, positions[one], positions[other]) <= limit
    start, end = one[near], other[near]
    links = sparse.csr_matrix((np.ones(len(start), np.int8), (start, end)), shape=(m, m))
    _, group = connected_components(links, directed=False)
    _, first_of = np.unique(group, return_index=True)
    stands_for = first_of[group]
    # Links may form a chain through dense rows, whose ends are far apart: such rows stand for themselves.
    copy = np.flatnonzero(stands_for != np.arange(m))
    far = copy[_distances(rows, positions[copy], positions[stands_for[copy]]) > limit]
    stands_for[far] = far
    return Copies(stands_for)


def _distances(rows: Rows, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Compute the distances of pairs ``(P,)`` of rows; pairs in the order of a file are read faster."""
    apart = np.empty(len(one), np.float32)
    for pairs in np.array_split(np.arange(len(one)), 1 + len(one) * rows.width // BLOCK_ENTRIES):
        # Each row once: reading a few rows may mean reading a whole file.
        wanted, at = np.unique(np.stack([one[pairs], other[pairs]]), return_inverse=True)
        first, second = rows.take(wanted)[torch.from_numpy(at.reshape(2, -1))]
        apart[pairs] = torch.linalg.vector_norm(first - second, dim=1).cpu().numpy()
    return apart

"""Find exactly equal rows that lie in different clusters."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from ebsc_core.data.features.rows import Rows


@dataclass(frozen=True)
class SplitCopies:
    """Count the exactly equal rows that lie in different clusters."""

    sets: int
    """The number of sets of equal rows that lie in more than one cluster."""
    rows: int
    """The number of rows in these sets."""
    different: int
    """The number of different rows among all that have a cluster."""


def split_copies(rows: Rows, labels: np.ndarray) -> SplitCopies:
    """Count the rows ``(N, D)`` that have exact copies in another cluster.

    Rows without a cluster are left out. Rows are compared by a digest of 64 bits, which takes about 3 µs for
    a row of 512 numbers.
    """
    digests = np.empty(len(rows), np.uint64)
    for start, block in rows.blocks():
        # Adding 0 makes -0 and 0 the same bytes.
        lines = (_digest(line) for line in (block + 0.0).cpu().numpy())
        digests[start : start + len(block)] = np.fromiter(lines, np.uint64, len(block))
    assigned = labels >= 0
    _, group = np.unique(digests[assigned], return_inverse=True)
    if not len(group):
        return SplitCopies(0, 0, 0)
    pairs = np.unique(np.stack([group, labels[assigned]]), axis=1)
    split = np.bincount(pairs[0]) > 1
    return SplitCopies(int(split.sum()), int(split[group].sum()), len(split))


def _digest(line: np.ndarray) -> int:
    return int.from_bytes(blake2b(line.tobytes(), digest_size=8).digest(), "little")

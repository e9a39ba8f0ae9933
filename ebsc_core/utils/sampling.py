"""Draw seeded samples of positions."""

from __future__ import annotations

import numpy as np


def sample_positions(n: int, limit: int | None, seed: int) -> np.ndarray:
    """Return the sorted positions of a seeded sample of ``limit`` out of ``n``; all ``n`` if None."""
    if limit is None or limit >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).permutation(n)[:limit])

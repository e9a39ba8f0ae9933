from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ebsc_core.utils.sampling import sample_positions


@given(n=st.integers(1, 40), limit=st.integers(1, 50), seed=st.integers(0, 5))
def test_sample_positions_are_distinct_sorted_and_seeded(n: int, limit: int, seed: int) -> None:
    chosen = sample_positions(n, limit, seed)
    assert len(chosen) == min(n, limit)
    assert (np.diff(chosen) > 0).all()
    assert chosen.min() >= 0
    assert chosen.max() < n
    np.testing.assert_array_equal(chosen, sample_positions(n, limit, seed))

"""What the progress of a run says."""

from __future__ import annotations

import pytest

from ebsc_core.utils.progress import clock


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (3599.7, "1 h 00 min")],
)
def test_a_duration_has_no_more_seconds_or_minutes_than_a_clock(seconds: float, said: str) -> None:
    assert clock(seconds) == said

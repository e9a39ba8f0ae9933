"""Scikit-learn's digits."""

from __future__ import annotations

from pathlib import Path

from ebsc_core.config.options import Options
from ebsc_core.plugins.interfaces import DataContext
from ebsc_plugins.datasets.digits import read_digits


def test_digits_are_scikit_learns_with_gray_levels_spread_out() -> None:
    digits = read_digits(Options(), DataContext(Path("nowhere")))
    assert digits.images.shape == (1797, 1, 8, 8)
    assert (int(digits.images.min()), int(digits.images.max())) == (0, 255)
    assert len(digits.images.unique()) == 17
    assert digits.n_classes == 10
    assert digits.ids[:2] == ["0", "1"]

"""Compute what a row gains over its baseline: the mean of paired differences, its error, and a test of it.

A seed draws the same images, the same split and the same first weights in both rows. So the differences of
pairs vary less than the rows themselves, and they are what a comparison can rely on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from scipy import stats

Scores = Mapping[str, float]
"""Scores by name, in percent."""

SIGNIFICANT = 0.05
# Differences of equal scores differ by rounding alone.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Gain:
    """Hold the mean of paired differences, in percentage points, and how sure it is."""

    mean: float
    error: float | None
    """The standard error: the sample standard deviation over the root of the number of pairs; None of a
    single pair."""
    p: float | None
    """The p-value of a two-sided paired t-test; None of a single pair, and if all pairs differ by the same:
    then the seeds change nothing, and there is nothing to test."""

    @classmethod
    def of(cls, differences: Sequence[float]) -> Gain:
        n, center = len(differences), mean(differences)
        if n == 1:
            return cls(center, None, None)
        error = stdev(differences) / n**0.5
        if error < ROUNDING:
            return cls(center, error, None)
        return cls(center, error, float(2 * stats.t.sf(abs(center) / error, n - 1)))

    @property
    def significant(self) -> bool:
        """Whether the test is significant at 5 %."""
        return self.p is not None and self.p < SIGNIFICANT


def paired_gains(row: Mapping[int, Scores], baseline: Mapping[int, Scores]) -> dict[str, Gain]:
    """Compare two rows on one data set; return the gain in each score.

    Parameters
    ----------
    row, baseline : mapping
        The scores by seed. If either has none, there is no gain.
    """
    seeds = row.keys() & baseline.keys()
    if not seeds:
        return {}
    names = next(iter(row.values()))
    return {
        name: Gain.of([row[seed][name] - baseline[seed][name] for seed in sorted(seeds)]) for name in names
    }


def mean_gains(gains: Sequence[Mapping[str, Gain]]) -> dict[str, Gain]:
    """Average the gains on several data sets; the standard error is over the data sets.

    It says how much the average would vary with other data sets, which seeds alone do not tell.
    """
    if not gains or not all(gains):
        return {}
    return {name: Gain.of([each[name].mean for each in gains]) for name in gains[0]}

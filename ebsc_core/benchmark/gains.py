"""Compute what a row gains over its baseline: the mean of paired differences, and its standard error.

A seed draws the same images, the same split and the same first weights in both rows. So the differences of
pairs vary less than the rows themselves, and they are what a comparison can rely on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

Scores = Mapping[str, float]
"""Scores by name, in percent."""


@dataclass(frozen=True)
class Gain:
    """Hold the mean of paired differences, in percentage points, and its standard error."""

    mean: float
    error: float | None
    """The sample standard deviation over the root of the number of pairs; None of a single pair."""

    @classmethod
    def of(cls, differences: Sequence[float]) -> Gain:
        n = len(differences)
        return cls(mean(differences), stdev(differences) / n**0.5 if n > 1 else None)


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

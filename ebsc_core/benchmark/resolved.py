"""Record what a run decided where its settings were open, and tell in what a row differs from its baseline.

A coefficient model has wishes of its own: the form of its rows, the graph, how many coefficients a row keeps.
So a row that names another model changes more than the model, and a table that hid this would mislead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ebsc_core.config.loading import flattened

# The options of a component are its own, so these are the settings that two components can have in common.
# A setting that is decided by machine or paths says nothing about the row.
ALWAYS = ("n_clusters", "dictionary_size", "express", "whiten", "top_k", "search", "affinity")
TRAINING = ("train", "views", "precision", "joint")
REFINEMENT = ("refine",)

Resolved = Mapping[str, Any]
"""Settings by name, in tables, as ``run.toml`` has them."""


@dataclass(frozen=True)
class Difference:
    """Hold a setting that a row and its baseline have resolved differently."""

    setting: str
    value: str
    """The value in the row, ``not in use`` if it took no effect."""
    baseline: str
    seeds: tuple[int, ...]
    """The seeds with these two values; empty if it is all of them."""


def recorded(tables: Resolved, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Select from ``run.toml`` the settings that took effect in the run with these ``metrics``."""
    names = [*ALWAYS]
    names += TRAINING if metrics["training"] else ()
    names += REFINEMENT if "refine coefficients" in metrics["seconds"] else ()
    return {name: tables[name] for name in names if name in tables}


def differences(
    row: Mapping[int, Resolved], baseline: Mapping[int, Resolved], named: Mapping[str, Any]
) -> list[Difference]:
    """Compare the resolved settings of a row with those of its baseline, seed by seed.

    Parameters
    ----------
    row, baseline : mapping
        The resolved settings by seed. Seeds that only one of them has do not count.
    named : mapping
        What the row itself sets, which is no surprise.
    """
    own = {name for name, _ in flattened(named)}
    found: dict[tuple[str, str, str], list[int]] = {}
    seeds = sorted(row.keys() & baseline.keys())
    for seed in seeds:
        for setting, (mine, other) in _pairs(row[seed], baseline[seed]).items():
            if mine != other and setting not in own:
                found.setdefault((setting, mine, other), []).append(seed)
    return [Difference(*key, () if having == seeds else tuple(having)) for key, having in found.items()]


def _pairs(row: Resolved, baseline: Resolved) -> dict[str, tuple[str, str]]:
    """Return each setting that either has, with both values as text."""
    pairs: dict[str, tuple[str, str]] = {}
    for name in row.keys() | baseline.keys():
        mine, other = row.get(name), baseline.get(name)
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            both = dict(flattened({name: mine})), dict(flattened({name: other}))
            names = both[0].keys() | both[1].keys()
            pairs |= {each: (_said(both[0].get(each)), _said(both[1].get(each))) for each in names}
        else:
            pairs[name] = (_said(mine), _said(other))
    return dict(sorted(pairs.items()))


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return "in use"
    if isinstance(value, bool):
        return str(value).lower()
    return "not in use" if value is None else str(value)

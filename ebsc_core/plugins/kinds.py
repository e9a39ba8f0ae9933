"""The kinds of part there are."""

from __future__ import annotations

from enum import Enum


class Kind(Enum):
    """The kinds of part: ``value`` is the configuration section, ``hook`` what yields them."""

    DATA = ("data", "ebsc_datasets", "data set")
    BACKBONE = ("backbone", "ebsc_backbones", "backbone")
    OBJECTIVE = ("objective", "ebsc_objectives", "objective")
    COEFFICIENTS = ("coefficients", "ebsc_coefficient_models", "coefficient model")
    CLUSTERER = ("clusterer", "ebsc_clusterers", "clusterer")
    OBSERVER = ("observers", "ebsc_observers", "observer")
    """The only kind that a run has none of unless told, or several."""

    def __init__(self, section: str, hook: str, words: str) -> None:
        self.section, self.hook, self.words = section, hook, words

    @property
    def setting(self) -> str:
        """The setting that chooses one."""
        return self.section if self is Kind.OBSERVER else f"{self.section}.name"

    def settings(self, name: str) -> str:
        """Where the configuration has the options of the part called ``name``."""
        return f"{self.section}.{name}" if self is Kind.OBSERVER else self.section


REQUIRED = tuple(kind for kind in Kind if kind is not Kind.OBSERVER)
"""The kinds that every run has one of."""

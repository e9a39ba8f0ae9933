"""List the kinds of component."""

from __future__ import annotations

from enum import Enum


class Kind(Enum):
    """Name each kind: its configuration section, the hook that yields it, and the words for messages."""

    DATA = ("data", "ebsc_datasets", "data set")
    BACKBONE = ("backbone", "ebsc_backbones", "backbone")
    OBJECTIVE = ("objective", "ebsc_objectives", "objective")
    COEFFICIENTS = ("coefficients", "ebsc_coefficient_models", "coefficient model")
    CLUSTERER = ("clusterer", "ebsc_clusterers", "clusterer")
    OBSERVER = ("observers", "ebsc_observers", "observer")
    """The only optional kind. A run can have any number of observers, also none."""

    def __init__(self, section: str, hook: str, words: str) -> None:
        self.section, self.hook, self.words = section, hook, words

    @property
    def setting(self) -> str:
        """The setting that chooses one."""
        return self.section if self is Kind.OBSERVER else f"{self.section}.name"

    def settings(self, name: str) -> str:
        """Return the configuration section that holds the options of the component ``name``."""
        return f"{self.section}.{name}" if self is Kind.OBSERVER else self.section


REQUIRED = tuple(kind for kind in Kind if kind is not Kind.OBSERVER)
"""The kinds of which every run has one component each."""

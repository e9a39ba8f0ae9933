"""Find outliers and duplicates for the page of a run, as far as this is quick."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from ebsc_core.curation.duplicates import Duplicate, Duplicates
from ebsc_core.curation.finding import find_in_run
from ebsc_core.curation.outliers import UNMARKED, Outlier, find_outliers
from ebsc_core.data.images.run_images import RunImages
from ebsc_core.report.thumbnails import READ_SECONDS
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.errors import DataError
from ebsc_core.utils.progress import Progress

# Limits of a run for which both are looked for, images and values of its rows, so that they take some two
# seconds. (For 10,000 rows of 784 values it would be six, of one core; the time grows with the square.)
MAX_IMAGES, MAX_VALUES = 10_000, 4_000_000
# Limits: outliers on the page, groups of duplicates, and images of each group.
OUTLIERS, GROUPS, OF_EACH = 12, 8, 4
# After this time, reading is given up if it would take longer than its limit.
TRIED_SECONDS = 1.0


@dataclass(frozen=True)
class Finds:
    """Hold the outliers and duplicates that a page shows."""

    outliers: list[Outlier]
    duplicates: Duplicates | None
    """None if they were not looked for."""
    why_none: str = ""
    """The reason."""
    too_many: bool = False
    """Whether the run is so large that neither outliers nor duplicates were looked for."""

    @property
    def groups(self) -> list[list[Duplicate]]:
        """The images of the largest groups of duplicates that the page shows."""
        groups = self.duplicates.groups if self.duplicates else []
        return [group[:OF_EACH] for group in groups[:GROUPS]]

    @property
    def positions(self) -> list[int]:
        """The positions of all images that the page shows."""
        duplicates = [one.position for group in self.groups for one in group]
        return [one.position for one in self.outliers] + duplicates


def find(run: SavedRun, images: RunImages | None) -> Finds:
    """Find the strongest outliers of a run, and its duplicates.

    Both are left out for runs beyond ``MAX_IMAGES`` or ``MAX_VALUES``, and duplicates if the images cannot be
    read in ``READ_SECONDS``. The commands have no such limits.

    Raises
    ------
    RunDirectoryError
        If a file of the run is damaged.
    """
    rows = run.rows
    if len(run.assignments.ids) > MAX_IMAGES or len(rows) * rows.width > MAX_VALUES:
        return Finds([], None, too_many=True)
    marked = [one for one in find_outliers(run, OUTLIERS) if one.why != UNMARKED]
    try:
        return Finds(marked, find_in_run(run, images, None, _Deadline(READ_SECONDS)).found)
    except _TooSlow:
        return Finds(marked, None, f"reading all images would take more than {READ_SECONDS:.0f} s")
    except DataError as error:  # an image that the page does not show was damaged since the run
        return Finds(marked, None, str(error))


class _TooSlow(Exception):
    """Say that a stage would take too long."""


class _Deadline(Progress):
    """Give up a stage as soon as it is clear that it will take more than ``seconds``."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def start(self, stage: str, total: int, unit: str) -> None:
        self.began, self.total = time.monotonic(), total

    def advance(self, done: int, figures: Mapping[str, float] | None = None) -> None:
        elapsed = time.monotonic() - self.began
        if elapsed > TRIED_SECONDS and elapsed * self.total > self.seconds * done:
            raise _TooSlow

"""Report the progress of an estimator as Python programs do: by logging, by warnings and by print."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Mapping

from ebsc_core.estimators.settings import in_parameters
from ebsc_core.utils.progress import Progress, clock

LINE_EVERY_SECONDS = 10.0
# Silent unless the program configures logging: warnings are Python's, and ``verbose`` prints.
LOG = logging.getLogger("ebsc")
LOG.addHandler(logging.NullHandler())


class Spoken(Progress):
    """Log all messages, turn warnings into Python's warnings, and print progress if ``verbose``."""

    def __init__(self, verbose: bool) -> None:
        super().__init__()
        self.verbose = verbose

    def note(self, message: str) -> None:
        message = in_parameters(message)
        LOG.info(message)
        if self.verbose:
            print(message, flush=True)

    def warn(self, message: str) -> None:
        super().warn(message)  # files keep the names of settings
        message = in_parameters(message)
        LOG.warning(message)
        warnings.warn(message, UserWarning, stacklevel=3)

    def start(self, stage: str, total: int, unit: str) -> None:
        self.stage, self.total, self.unit = stage, total, unit
        self.began = self.last_line_at = time.perf_counter()
        self.done, self.figures = 0, dict[str, float]()

    def advance(self, done: int, figures: Mapping[str, float] | None = None) -> None:
        self.done = done
        self.figures.update(figures or {})
        if time.perf_counter() - self.last_line_at > LINE_EVERY_SECONDS:
            self.last_line_at = time.perf_counter()
            self._say(f"{done}/{self.total} {self.unit}")

    def finish(self, summary: str = "") -> None:
        if self.done:
            self._say(f"{self.done} {self.unit} in {clock(time.perf_counter() - self.began)}", summary)

    def _say(self, *parts: str) -> None:
        figures = [f"{name} {value:.4g}" for name, value in self.figures.items()]
        self.note(f"{self.stage}: {', '.join(filter(None, [*parts, *figures]))}")

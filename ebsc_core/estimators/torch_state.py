"""A run inside somebody's program: it leaves torch as it was, and speaks as Python does."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from ebsc_core.estimators.settings import spoken
from ebsc_core.utils.progress import Progress, clock

LINE_EVERY_SECONDS = 10.0
# Random generators and the precision of products are torch's, one for all threads: a run has them to itself.
_one_at_a_time = threading.RLock()


@contextmanager
def apart(device: torch.device) -> Iterator[None]:
    """Random generators and switches of torch are afterwards as they were before.

    Runs of several threads take turns: each seeds the same generators.
    """
    kind, devices, cudnn = "cuda", range(0), torch.backends.cudnn
    if device.type == "mps":
        kind, devices = "mps", range(1)
    elif device.type == "cuda" or torch.cuda.is_initialized():  # a seed is for all of them
        devices = range(torch.cuda.device_count())
    with _one_at_a_time, torch.random.fork_rng(devices, device_type=kind):
        before = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before[0])
            cudnn.allow_tf32, cudnn.benchmark = before[1:]


class Spoken(Progress):
    """Warnings are Python's; what is going on is printed, if that is wanted."""

    def __init__(self, verbose: bool) -> None:
        super().__init__()
        self.verbose = verbose

    def note(self, message: str) -> None:
        if self.verbose:
            print(message, flush=True)

    def warn(self, message: str) -> None:
        super().warn(message)
        warnings.warn(spoken(message), UserWarning, stacklevel=3)

    def start(self, stage: str, total: int, unit: str) -> None:
        self.stage, self.total, self.unit = stage, total, unit
        self.began = self.said = time.perf_counter()
        self.done, self.figures = 0, dict[str, float]()

    def advance(self, done: int, figures: Mapping[str, float] | None = None) -> None:
        self.done = done
        self.figures.update(figures or {})
        if time.perf_counter() - self.said > LINE_EVERY_SECONDS:
            self.said = time.perf_counter()
            self._say(f"{done}/{self.total} {self.unit}")

    def finish(self, summary: str = "") -> None:
        if self.done:
            self._say(f"{self.done} {self.unit} in {clock(time.perf_counter() - self.began)}", summary)

    def _say(self, *parts: str) -> None:
        figures = [f"{name} {value:.4g}" for name, value in self.figures.items()]
        self.note(f"{self.stage}: {', '.join(filter(None, [*parts, *figures]))}")

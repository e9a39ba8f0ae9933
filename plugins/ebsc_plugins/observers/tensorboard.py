"""Write curves for TensorBoard with torch's writer."""

from __future__ import annotations

import os
from pathlib import Path

from ebsc_core import (
    EpochFinished,
    Options,
    RunFailed,
    RunFinished,
    RunStarted,
    StageFinished,
    hookimpl,
    missing_package,
)


class TensorBoardOptions(Options):
    """Configure the folder of the curves."""

    folder: str | None = None
    """The folder for all runs; each run has a subfolder with the name of its run directory. The default is
    ``tensorboard`` beside the run directory, which itself exists only when the run has finished."""


class TensorBoard:
    """Write figures during the run; ``tensorboard --logdir runs/tensorboard`` shows them at once.

    Raises
    ------
    ComponentError
        If TensorBoard is not installed.
    """

    Options = TensorBoardOptions

    def __init__(self, options: TensorBoardOptions) -> None:
        self.options = options
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing_package("observer 'tensorboard'", "TensorBoard", "tensorboard", error) from error
        self.writer_class = SummaryWriter

    @hookimpl
    def ebsc_run_started(self, event: RunStarted) -> None:
        own = self.options.folder
        folder = Path(os.path.expanduser(own)) if own else event.directory.parent / "tensorboard"
        self.writer = self.writer_class(str(folder / event.directory.name))
        parts = (f"    {section}: {supplier}" for section, supplier in event.parts.items())
        self.writer.add_text("parts", "\n".join(parts))

    @hookimpl
    def ebsc_epoch_finished(self, event: EpochFinished) -> None:
        for name, value in event.figures.items():
            self.writer.add_scalar(f"training/{name}", value, event.epoch)
        self.writer.flush()

    @hookimpl
    def ebsc_stage_finished(self, event: StageFinished) -> None:
        self.writer.add_scalar(f"seconds/{event.stage}", event.seconds)

    @hookimpl
    def ebsc_run_finished(self, event: RunFinished) -> None:
        for group in ("scores", "label_free"):
            for name, value in (event.metrics[group] or {}).items():
                if isinstance(value, int | float):
                    self.writer.add_scalar(f"{group}/{name}", value)
        self.writer.close()

    @hookimpl
    def ebsc_run_failed(self, event: RunFailed) -> None:
        self.writer.add_text("failed", event.error)
        self.writer.close()

"""Do a run on images in its own or a temporary directory, and assign new images to its clusters."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ebsc_core.config.schema import RunConfig
from ebsc_core.curation.duplicates import Duplicates, check_threshold
from ebsc_core.curation.export import Export, export
from ebsc_core.curation.finding import find_in_run, images_of
from ebsc_core.curation.image_files import ImageFiles, image_files
from ebsc_core.curation.similar import Similar, find_similar
from ebsc_core.data.features.store import FeatureTable
from ebsc_core.data.images.python_inputs import given_images
from ebsc_core.data.images.run_images import RunImages
from ebsc_core.data.images.source import ImageSource
from ebsc_core.estimators.torch_state import apart
from ebsc_core.plugins.registry import Registry
from ebsc_core.runs.plan import ImagePlan, make_plan
from ebsc_core.runs.predict import Predictor, new_data
from ebsc_core.runs.run import run
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.runs.store.unfinished import is_unfinished
from ebsc_core.utils.device import prepare, resolve_device
from ebsc_core.utils.errors import (
    ConfigError,
    DataError,
    DeviceError,
    TrainingError,
    advice,
    is_out_of_memory,
)
from ebsc_core.utils.launched import process_count
from ebsc_core.utils.progress import Progress


class Folder:
    """Hold the folder of a run. A temporary folder is deleted with its last user; a pickle holds its files.

    Parameters
    ----------
    path : str, optional
        The directory of the run. By default it is inside a temporary folder.
    """

    def __init__(self, path: str | None = None) -> None:
        self.temporary = path is None
        self.path = self._made() if path is None else Path(os.path.expanduser(path)).absolute()

    def _made(self) -> Path:
        parent = tempfile.mkdtemp(prefix="ebsc-")
        # Unlike weakref.finalize, this runs at the end of a worker of multiprocessing or joblib, too, and
        # only in the process that made the folder, not in those that it forks.
        Finalize(self, shutil.rmtree, (parent, True), exitpriority=0)
        return Path(parent, "run")

    def __getstate__(self) -> dict[str, Any]:
        files = filter(Path.is_file, self.path.rglob("*")) if self.temporary else ()
        return vars(self) | {"files": {str(file.relative_to(self.path)): file.read_bytes() for file in files}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        files = state.pop("files")
        vars(self).update(state)
        if self.temporary:
            self.path = self._made()
        for name, content in files.items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_bytes(content)


class FinishedRun:
    """Hold a finished run for an estimator.

    Parameters
    ----------
    folder : Folder
    device : str
        The device that embeds new images.

    Raises
    ------
    EbscError
        If the folder holds no finished run on images.
    """

    def __init__(self, folder: Folder, device: str) -> None:
        self.folder, self.device = folder, device
        self.saved = SavedRun(folder.path)
        if self.saved.config.features:
            raise ConfigError(
                f"{folder.path} is a run on features, not on images; use ebsc predict, or "
                "EnergySubspaceClustering on the same features"
            )

    @cached_property
    def _predictor(self) -> Predictor:
        return Predictor(self.saved, Registry(), resolve_device(self.device))

    def assign(self, images: Any, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
        """Return clusters and confidence of new images."""
        with self._open_predictor(progress) as predictor:
            tables = self._tables(images, predictor)
            blocks = [predictor.assign(predictor.rows_of(table)) for table in tables]
        clusters, confidence = map(np.concatenate, zip(*blocks, strict=True))
        return clusters, confidence

    def rows(self, images: Any, progress: Progress) -> np.ndarray:
        """Compute the rows of new images, ``(N, D)`` float32 of unit length."""
        with self._open_predictor(progress) as predictor:
            return torch.cat([predictor.rows_of(table) for table in self._tables(images, predictor)]).numpy()

    def decide(self, decision: Callable[[SavedRun], SavedRun]) -> None:
        """Make a decision about the clusters, or take one back; new images follow it from then on."""
        self.saved = decision(self.saved)
        vars(self).pop("_predictor", None)

    def export(self, wanted: Export, images: Any, progress: Progress) -> None:
        """Export the clusters; ``images`` are those of the run, if they were in memory."""
        files = partial(self._files, images, progress)
        export(self.saved, wanted, files, progress.note)

    def _files(self, images: Any, progress: Progress) -> ImageFiles:
        if images is None:
            return image_files(
                self.saved, Registry(), progress.warn, progress.note, "give the images of `fit` as `X`"
            )
        source = self._fitted(images)
        return ImageFiles(RunImages(source), None, list(source.ids))

    def _fitted(self, images: Any) -> ImageSource:
        """Convert the fitted images, which were in memory; refuse another number of them."""
        source, count = given_images(images), len(self.saved.assignments.ids)
        if len(source) != count:
            raise DataError(
                f"there are {len(source)} images, and {count} were fitted; give the images of `fit`"
            )
        return source

    def duplicates(self, images: Any, threshold: float | None, progress: Progress) -> Duplicates:
        """Find duplicates among the images of the run, which are read again unless they are given."""
        check_threshold(threshold)  # before images are read
        with apart(resolve_device(self.device)):
            if images is None:
                source = images_of(self.saved, Registry(), progress, "give those of `fit` as `images`")
            else:
                source = RunImages(self._fitted(images))
            return find_in_run(self.saved, source, threshold, progress).found

    def similar(self, wanted: str, top: int, progress: Progress) -> list[Similar]:
        """Find the images that are most similar to one of the run or to a new file."""
        device = resolve_device(self.device)
        with apart(device):
            prepare(device)
            return find_similar(self.saved, wanted, top, lambda: self._predictor, progress)

    def _tables(self, images: Any, predictor: Predictor) -> Iterator[FeatureTable]:
        if isinstance(images, str | os.PathLike):
            # The folder may be named by somebody else's run; then nothing is downloaded to it.
            root = self.saved.config.data.root
            source = predictor.read(new_data(self.saved, os.fspath(images), root=root), download=root is None)
            assert isinstance(source, ImageSource)
        else:
            source = predictor.convert(images)
        return predictor.extract(source)

    @contextmanager
    def _open_predictor(self, progress: Progress) -> Iterator[Predictor]:
        device = resolve_device(self.device)
        with apart(device):
            prepare(device)
            self._predictor.progress = progress
            yield self._predictor

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "device": self.device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.saved = SavedRun(self.folder.path)


def run_images(config: RunConfig, images: Any, labels: Any, progress: Progress) -> FinishedRun:
    """Do a run on images; ``config`` names them if they are a path or a name.

    Raises
    ------
    EbscError
        For the same reasons as :func:`ebsc_core.runs.run.run`.
    """
    if process_count() > 1:
        raise DeviceError("EBSC trains in one process; use `ebsc run` to train in several")
    data = None
    if not isinstance(images, str | os.PathLike):
        plan = make_plan(config, Registry(), reads=False)
        data = given_images(images, labels, largest=plan.side if isinstance(plan, ImagePlan) else None)
    elif labels is not None:
        raise ConfigError(f"y is given, but {images} is read with labels of its own; leave it out")
    folder = Folder(config.out)
    resuming = is_unfinished(folder.path)
    with apart(resolve_device(config.device)):
        chosen = config.model_copy(update={"out": str(folder.path)})
        try:
            result = run(chosen, Registry(), progress, data, resuming)
        except TrainingError as error:
            # What is kept then belongs to this batch size: only a run that is resumed takes up another.
            if folder.temporary and advice(error) and is_out_of_memory(error.__cause__ or error):
                error.add_note("with another `train.batch_size` it begins anew; a fit with `out` would go on")
            raise
        if result and not folder.temporary:
            from ebsc_core.report import report_on  # nobody would see the report in a temporary folder

            report_on(result.directory, result.images, progress.warn)
    return FinishedRun(folder, config.device)

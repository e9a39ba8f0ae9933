"""Find the images of a finished run as files, or read their pixels where they are no files of their own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from ebsc_core.data.images.pil import as_picture
from ebsc_core.data.images.run_images import RunImages
from ebsc_core.plugins.registry import Registry
from ebsc_core.runs.store.images import CURE, read_again
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.errors import DataError
from ebsc_core.utils.files import cut_name

# Bytes of a file name that is made of a path; there is room for what is put before it.
MAX_NAME = 200


@dataclass(frozen=True)
class ImageFiles:
    """Hold the images of a run, in the order of ``assignments.csv``."""

    images: RunImages
    folder: Path | None
    """The folder of the image files; None if the images are in an archive or an array, or in memory."""
    ids: list[str]
    """The names of the images; paths within ``folder`` if there is one."""

    @property
    def names(self) -> list[str]:
        """The name of each image as a file of its own; no two are equal."""
        return _file_names(self.ids, "" if self.folder else ".png")

    def place(self, position: int, targets: Sequence[Path], copy: bool) -> None:
        """Link or copy one image file to each of the targets."""
        assert self.folder
        for target in targets:
            if copy:
                shutil.copyfile(self.folder / self.ids[position], target)
            else:
                target.symlink_to(self.folder / self.ids[position])

    def pictures(self, positions: Sequence[int]) -> Iterator[tuple[int, Image.Image]]:
        """Yield positions and pictures, in the fastest order.

        Raises
        ------
        DataError
            If an image cannot be read.
        """
        wanted = np.array(positions, dtype=np.int64)
        for which, pixels in self.images.read(wanted):
            for index, image in zip(which.tolist(), pixels, strict=True):
                yield positions[index], as_picture(image)


def image_files(
    run: SavedRun,
    registry: Registry,
    warn: Callable[[str], None],
    note: Callable[[str], None],
    cure: str = CURE,
) -> ImageFiles:
    """Read the images of a run again, as :func:`ebsc_core.runs.store.images.read_again`.

    Raises
    ------
    EbscError
        If the run had no images, they are gone, or are not those of the run.
    """
    features = run.config.features
    if features and not features.images:
        raise DataError(
            f"{run.path} clustered rows without images, so only a table makes sense; give `table` alone, or "
            "repeat the run with `features.images`"
        )
    images = read_again(run, registry, warn, note, cure)
    ids, folder = list(images.ids()), folder_of_images(run)
    are_files = folder is not None and all((folder / one).is_file() for one in ids)
    return ImageFiles(images, folder if are_files else None, ids)


def folder_of_images(run: SavedRun) -> Path | None:
    """Return the folder of a run's images; None if they are in an archive or an array, or are not known."""
    features = run.config.features
    name = features.images if features else run.config.data.name
    folder = Path(os.path.realpath(os.path.expanduser(name or "")))
    return folder if name and folder.is_dir() else None


def _file_names(ids: Sequence[str], suffix: str) -> list[str]:
    """Return the last parts of paths if they differ, or else whole paths, at need with a number before."""
    paths = [PurePosixPath(one) for one in ids]
    if suffix:
        paths = [
            path.with_suffix(suffix) if path.suffix else path.with_name(path.name + suffix) for path in paths
        ]
    whole = ["_".join(path.relative_to(path.anchor).parts) for path in paths]
    for names in ([path.name for path in paths], whole):
        if len({name.casefold() for name in names}) == len(names) and _all_fit(names):
            return names
    return [f"{number}-{_ending(path.name)}" for number, path in enumerate(paths)]


def _all_fit(names: Sequence[str]) -> bool:
    return all(len(os.fsencode(name)) <= MAX_NAME for name in names)


def _ending(name: str) -> str:
    stem, end = os.path.splitext(name)
    return cut_name(stem, MAX_NAME - len(os.fsencode(end))) + end

"""Find duplicates in data that no run has seen, or among the images or rows of a finished run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ebsc_core.config.loading import load_config
from ebsc_core.curation.duplicates import Duplicates, duplicate_images, duplicate_rows
from ebsc_core.curation.originals import Originals
from ebsc_core.curation.tables import Columns
from ebsc_core.curation.thumbnails import make_thumbnails
from ebsc_core.data.images.reading import read_images
from ebsc_core.data.images.run_images import RunImages
from ebsc_core.plugins.kinds import Kind
from ebsc_core.plugins.registry import Registry
from ebsc_core.plugins.selection import choose
from ebsc_core.runs.store.images import CURE, read_again
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.errors import DataError, EbscError, RunDirectoryError
from ebsc_core.utils.progress import Progress


@dataclass(frozen=True)
class Searched:
    """Hold the duplicates and what they were found among."""

    found: Duplicates
    count: int
    """The number of images or rows."""
    images: RunImages | None
    """None if rows alone were compared."""


def read_data(
    name: str,
    registry: Registry,
    settings: Iterable[str],
    progress: Progress,
    root: str | None = None,
    skip_bad_images: bool | None = None,
) -> RunImages:
    """Read images as ``ebsc run`` does.

    Parameters
    ----------
    name : str
        A data set, folder, .zip, .npz or .npy.
    settings : iterable of str
        ``data.OPTION=VALUE``.
    root, skip_bad_images
        Of :class:`ebsc_core.config.schema.DataChoice`; None for what ``settings`` or the defaults say.

    Raises
    ------
    EbscError
        If they cannot be read, or if a setting is about something else.
    """
    flags = {"data.name": name, "data.root": root, "data.skip_bad_images": skip_bad_images}
    config = load_config(None, settings, flags, sections=["data"])
    chosen = choose(registry, Kind.DATA, config.data)
    return RunImages(read_images(chosen, config.data, config.seed, progress.warn))


def find_in_data(images: RunImages, place: str, threshold: float | None, progress: Progress) -> Searched:
    """Find duplicates among images; ``place`` is the folder or zip that their names are relative to."""
    names = list(images.ids())
    if len(names) < 2:
        raise DataError(f"{images.fitted.name} holds one image; give at least two")
    thumbnails = make_thumbnails(images, progress)
    found = duplicate_images(thumbnails, names, threshold=threshold, originals=Originals(place))
    return Searched(found, len(names), images)


def find_in_run(
    run: SavedRun, images: RunImages | None, threshold: float | None, progress: Progress
) -> Searched:
    """Find duplicates among the images of a run, held-out ones included; without images, among its rows.

    Raises
    ------
    EbscError
        If a file of the run is damaged, or an image cannot be read.
    """
    config = run.config
    search, seed = config.search, config.seed
    if images is None:
        found = duplicate_rows(run.rows, run.assignments.ids, threshold, search, seed)
        return Searched(found, run.assignments.fitted, None)
    thumbnails, names = make_thumbnails(images, progress), list(images.ids())
    place = config.features.images if config.features else config.data.name
    originals = Originals(place or "")
    found = duplicate_images(thumbnails, names, run.rows.held(), threshold, search, seed, originals)
    return Searched(found, len(names), images)


def images_of(run: SavedRun, registry: Registry, progress: Progress, cure: str = CURE) -> RunImages | None:
    """Read the images of a run again; None, with a note or a warning, if there are none.

    The warning ends with ``cure``, what the caller can do about images that cannot be found.
    """
    if run.config.features and not run.config.features.images:
        progress.note("the run has no images; its rows alone are compared")
        return None
    try:
        return read_again(run, registry, progress.warn, progress.note, cure)
    except RunDirectoryError:
        raise
    except EbscError as error:
        progress.warn(f"{error}; the rows alone are compared, which says less")
        return None


def columns_of(found: Duplicates) -> Columns:
    """Return ``group``, ``image``, ``kind`` and ``similarity`` of each image in a group, for a table."""
    members = [(number, one) for number, group in enumerate(found.groups) for one in group]
    return {
        "group": [number for number, _ in members],
        "image": [one.image for _, one in members],
        "kind": [one.kind for _, one in members],
        "similarity": [round(one.similarity, 4) for _, one in members],
    }

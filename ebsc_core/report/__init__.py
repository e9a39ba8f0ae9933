"""Write ``report.html``, which shows the results of a run on one page without other files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ebsc_core.data.images.run_images import RunImages
from ebsc_core.plugins.registry import Registry
from ebsc_core.report.formatting import command
from ebsc_core.report.page import Page
from ebsc_core.runs.store.directory import REPORT
from ebsc_core.runs.store.images import read_again
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.errors import DataError, EbscError, RunDirectoryError, told
from ebsc_core.utils.files import written_whole

# Our pages are smaller; what another program has put there need not be.
MAX_BYTES = 8 << 20


def write_report(run: SavedRun, images: RunImages | None = None, why_none: str = "") -> Path:
    """Write the report into the run directory and replace an existing one.

    Parameters
    ----------
    run : SavedRun
    images : RunImages, optional
        The images of ``assignments.csv``. Without them, the page has no pictures.
    why_none : str
        The reason for missing images, which the page shows.

    Raises
    ------
    RunDirectoryError
        If a file of the run is damaged, or the report cannot be written.
    """
    try:
        text = Page(run, images, why_none).html()
    except DataError as error:  # an image was removed since the run
        if images is None:
            raise
        _keep_pictures(run.path / REPORT, error)
        text = Page(run, None, str(error)).html()
    path = run.path / REPORT
    if path.is_symlink():
        raise RunDirectoryError(f"{path} is a link, which may lead anywhere; remove it")
    try:
        with written_whole(path) as temporary_path:
            temporary_path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunDirectoryError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def report_on(path: Path, images: RunImages | None, warn: Callable[[str], None]) -> Path | None:
    """Write the report of a run that has just ended; a problem becomes a warning, not an error."""
    try:
        return write_report(SavedRun(path), images)
    except (Exception, KeyboardInterrupt) as error:  # the run may have taken hours
        again = command("report", path)
        warn(f"the run is complete, but its report could not be written ({told(error)}); try: {again}")
        return None


def rewrite_report(
    path: Path,
    registry: Registry,
    warn: Callable[[str], None],
    note: Callable[[str], None] = lambda line: None,
    images_now: str | None = None,
) -> Path:
    """Write the report of a run directory again; read its images again if they still exist.

    ``note`` hears what is read outside the directory, before it is read. ``images_now`` says where the images
    are if they have moved.

    Raises
    ------
    RunDirectoryError
        If the directory holds no finished run, or one of its files is damaged.
    DataError
        If the images cannot be read, and there is a report that has their pictures.
    """
    run = SavedRun(path, images_now)
    if run.files.unchecked:
        warn(run.files.unchecked)
    features = run.config.features
    if features and not features.images:  # the run never had images
        return write_report(run)
    try:
        images, why_none = read_again(run, registry, warn, note), ""
    except RunDirectoryError:
        raise
    except EbscError as error:
        _keep_pictures(path / REPORT, error)
        images, why_none = None, str(error)
        warn(f"the report has no pictures: {why_none}")
    return write_report(run, images, why_none)


def _keep_pictures(report: Path, error: EbscError) -> None:
    """Raise an error if a report without pictures would take the place of one that has some."""
    if report.is_symlink() or not report.is_file():
        return
    with report.open("rb") as file:
        has_pictures = b"<img " in file.read(MAX_BYTES)
    if has_pictures:
        raise DataError(
            f"{error}; {report} stays as it is, with its pictures (remove it for a report without pictures)"
        ) from error

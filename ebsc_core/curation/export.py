"""Export the clusters of a finished run: folders of images, tables, and files for labeling programs."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ebsc_core.curation.annotations import labeling_configuration, write_fiftyone, write_label_studio
from ebsc_core.curation.folders import FolderOptions, cluster_paths, export_folder
from ebsc_core.curation.image_files import ImageFiles, folder_of_images
from ebsc_core.curation.output import check_new
from ebsc_core.curation.tables import check_table, table, write_table
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.errors import ConfigError, DataError
from ebsc_core.utils.files import check_form, is_below


@dataclass(frozen=True)
class Export:
    """Say what to export, and where; None for what is not wanted."""

    out: Path | None = None
    folders: FolderOptions = field(default_factory=FolderOptions)
    table: Path | None = None
    top: int = 0
    """The number of clusters of each image in the table, with their shares; 0 for its cluster alone
    (:func:`ebsc_core.curation.tables.table`)."""
    fiftyone: Path | None = None
    label_studio: Path | None = None

    @property
    def needs_images(self) -> bool:
        """Whether images are needed; a table does without them."""
        return bool(self.out or self.fiftyone or self.label_studio)

    def check(self) -> None:
        """Raise an EbscError if nothing is wanted, options contradict, or something is there already."""
        paths = [path for path in (self.out, self.table, self.fiftyone, self.label_studio) if path]
        if not paths:
            raise ConfigError("say what to export: `out`, `table`, `fiftyone` or `label_studio`")
        if len({path.absolute() for path in paths}) < len(paths):
            raise ConfigError("two of the exports have the same path; give each its own")
        if self.folders != FolderOptions() and not self.out:
            raise ConfigError("`copy`, `typical`, `doubtful` and `sheets` are about folders; give `out`, too")
        if self.top and not self.table:
            raise ConfigError("`memberships` are columns of a table; give `table`, too")
        for path in paths:
            check_table(path) if path == self.table else check_new(path)
        for path in filter(None, (self.fiftyone, self.label_studio)):
            check_form(path, ".json")


def export(
    run: SavedRun, wanted: Export, files: Callable[[], ImageFiles], note: Callable[[str], None]
) -> None:
    """Export what is wanted; a file or a folder appears when it is complete.

    Parameters
    ----------
    files : callable
        Returns the images of the run; called only if they are needed.
    note : callable
        Hears a line about each thing that was written.

    Raises
    ------
    EbscError
        If something is there already, cannot be read, or cannot be written. What was complete stays.
    """
    wanted.check()
    folder = folder_of_images(run)
    if wanted.out and folder and is_below(wanted.out, folder):
        raise DataError(
            f"{wanted.out} is inside {folder}, the folder of the run's images, where exported images would "
            "count as further ones; give an `out` outside of it"
        )
    images = files() if wanted.needs_images else None
    if images and not (wanted.out or images.folder):
        raise DataError(
            "the images are in an archive or an array, where no other program finds them; give `out`, too: "
            "the images are then written there as files"
        )
    if wanted.table:
        columns = table(run, wanted.top)
        write_table(wanted.table, columns)
        note(f"{len(columns['image'])} rows -> {wanted.table}")
        if wanted.top and None in columns["share"]:
            without = columns["share"].count(None)
            note(
                f"{without} of them have no share: they are in no cluster, or have no affinity because they "
                "were not clustered, but assigned"
            )
    if images:
        _export_images(run, wanted, images, note)


def _export_images(run: SavedRun, wanted: Export, images: ImageFiles, note: Callable[[str], None]) -> None:
    if wanted.out:
        count = export_folder(run, images, wanted.out, wanted.folders)
        how = "copied" if wanted.folders.copy else "linked"
        how = how if images.folder else "written as PNG files in the size of the run"
        note(f"{count} images {how} -> {wanted.out}")
    root, paths = images.folder, images.ids
    if root is None:
        assert wanted.out
        root, paths = wanted.out.absolute() / "clusters", cluster_paths(run, images)
    if wanted.fiftyone:
        write_fiftyone(wanted.fiftyone, run, paths)
        note(
            f"labels for FiftyOne -> {wanted.fiftyone}; load them: fiftyone.Dataset.from_dir(dataset_type="
            f"fiftyone.types.FiftyOneImageClassificationDataset, data_path={str(root)!r}, "
            f"labels_path={str(wanted.fiftyone)!r})"
        )
    if wanted.label_studio:
        write_label_studio(wanted.label_studio, run, [f"{root.name}/{path}" for path in paths])
        note(
            f"tasks for Label Studio -> {wanted.label_studio}; start it with "
            "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true "
            f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={shlex.quote(str(root.parent))}, "
            f"add the local storage {root} to a project with this labeling configuration, and import the "
            f"file: {labeling_configuration(run)}"
        )

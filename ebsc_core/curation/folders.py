"""Export the images of a run to folders, one for each cluster.

======================  =====================================================================
``clusters/NAME/``      every image of a cluster; a cluster without a name has its number
``clusters/none/``      images without a cluster
``typical/NAME/``       the most typical images of a cluster, the first one first
``doubtful/NAME/``      the least sure images of a cluster, the least sure one first
``sheets/NAME.png``     images of a cluster on one picture, from typical to doubtful
======================  =====================================================================
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ebsc_core.curation.contact_sheet import PICTURES, contact_sheet
from ebsc_core.curation.graph import graph_of
from ebsc_core.curation.image_files import ImageFiles
from ebsc_core.curation.memberships import from_typical_to_doubtful, own_masses, sureness
from ebsc_core.curation.output import new_folder
from ebsc_core.runs.store.cluster_names import NONE
from ebsc_core.runs.store.saved import SavedRun

# The least digits of a rank in the name of a file.
RANK_DIGITS = 3


@dataclass(frozen=True)
class FolderOptions:
    """Say what an export holds, besides a folder for each cluster."""

    copy: bool = False
    """Copy image files in place of linking them."""
    typical: int = 0
    """The number of typical images of each cluster in a folder of their own."""
    doubtful: int = 0
    """The number of doubtful images of each cluster in a folder of their own."""
    sheets: bool = False
    """Make a contact sheet of each cluster."""


def export_folder(run: SavedRun, files: ImageFiles, out: Path, options: FolderOptions) -> int:
    """Write the folders whole, and return the number of images.

    Images that are no files of their own are written as PNG files, in the size that the run saw.

    Raises
    ------
    DataError
        If something is at ``out`` already, an image cannot be read, or the disk is full.
    """
    ordered = sorted_clusters(run)
    with new_folder(out) as folder:
        _place(files, _plan(run, files, ordered, options), folder, options.copy)
        if options.sheets:
            (folder / "sheets").mkdir()
            for number, positions in ordered.items():
                chosen = np.unique(np.linspace(0, len(positions) - 1, PICTURES).round().astype(int))
                sheet = contact_sheet(files, positions[chosen].tolist())
                sheet.save(folder / "sheets" / f"{run.curated.called(number)}.png")
    return len(files.ids)


def cluster_paths(run: SavedRun, files: ImageFiles) -> list[str]:
    """Return the path of each image within ``clusters/``."""
    called = {number: run.curated.called(number) for number in run.curated.numbers} | {-1: NONE}
    clusters = run.curated.clusters.tolist()
    return [f"{called[cluster]}/{name}" for cluster, name in zip(clusters, files.names, strict=True)]


def sorted_clusters(run: SavedRun) -> dict[int, np.ndarray]:
    """Return the positions of the fitted images of each cluster, from typical to doubtful."""
    sure, mass = sureness(run), own_masses(graph_of(run), len(run.assignments.ids))
    clusters = run.curated.clusters[: run.assignments.fitted]
    members = {number: np.flatnonzero(clusters == number) for number in run.curated.numbers}
    return {
        number: from_typical_to_doubtful(some, sure, mass) for number, some in members.items() if len(some)
    }


def _plan(
    run: SavedRun, files: ImageFiles, ordered: dict[int, np.ndarray], options: FolderOptions
) -> dict[int, list[str]]:
    """Return the paths in the export of each image."""
    plan: dict[int, list[str]] = defaultdict(list)
    for position, path in enumerate(cluster_paths(run, files)):
        plan[position].append(f"clusters/{path}")
    names = files.names
    for number, positions in ordered.items():
        some = {"typical": positions[: options.typical], "doubtful": positions[::-1][: options.doubtful]}
        for kind, chosen in some.items():
            digits = max(RANK_DIGITS, len(str(len(chosen))))  # names are sorted as text
            for rank, position in enumerate(chosen.tolist(), 1):
                name = f"{rank:0{digits}}-{names[position]}"
                plan[position].append(f"{kind}/{run.curated.called(number)}/{name}")
    return plan


def _place(files: ImageFiles, plan: dict[int, list[str]], folder: Path, copy: bool) -> None:
    targets = {position: [folder / path for path in paths] for position, paths in plan.items()}
    for parent in {target.parent for some in targets.values() for target in some}:
        parent.mkdir(parents=True, exist_ok=True)
    if files.folder:
        for position, some in targets.items():
            files.place(position, some, copy)
        return
    for position, picture in files.pictures(list(targets)):
        for target in targets[position]:
            picture.save(target)

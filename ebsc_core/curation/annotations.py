"""Write the clusters of a run for programs in which people look at images and label them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ebsc_core.curation.memberships import sureness
from ebsc_core.curation.output import new_file
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.errors import DataError, shortened

# The names in a labeling configuration of Label Studio that the predictions belong to.
FROM_NAME, TO_NAME = "cluster", "image"


def write_fiftyone(path: Path, run: SavedRun, files: Sequence[str]) -> None:
    """Write ``labels.json`` of a ``FiftyOneImageClassificationDataset``, with the confidence of each image.

    Parameters
    ----------
    files : sequence of str
        The path of each image in the folder that FiftyOne gets as ``data_path``.

    Raises
    ------
    DataError
        If two paths differ only in their suffix, which FiftyOne leaves out, or the file cannot be written.
    """
    numbers = run.curated.numbers
    index = {number: at for at, number in enumerate(numbers)}
    labels: dict[str, Any] = {}
    for file, cluster, confidence in _lines(run, files):
        name = os.path.splitext(file)[0]
        if name in labels:
            raise DataError(
                f"two images are called {shortened(name)!r} but for the suffix, which FiftyOne does not tell "
                "apart; rename one"
            )
        labels[name] = {"label": index[cluster], "confidence": confidence} if cluster >= 0 else None
    classes = [run.curated.called(number) for number in numbers]
    _write(path, {"classes": classes, "labels": labels})


def write_label_studio(path: Path, run: SavedRun, files: Sequence[str]) -> None:
    """Write tasks of Label Studio, each with the cluster as a prediction.

    Parameters
    ----------
    files : sequence of str
        The path of each image in the folder that Label Studio serves
        (``LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT``), which must be in a folder there.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    version = f"ebsc {os.path.basename(os.path.abspath(run.path))}"
    tasks = []
    for file, cluster, confidence in _lines(run, files):
        task: dict[str, Any] = {"data": {TO_NAME: f"/data/local-files/?d={quote(os.fsencode(file))}"}}
        if cluster >= 0:
            choice = {"choices": [run.curated.called(cluster)]}
            result = {"from_name": FROM_NAME, "to_name": TO_NAME, "type": "choices", "value": choice}
            task["predictions"] = [{"model_version": version, "score": confidence, "result": [result]}]
        tasks.append(task)
    _write(path, tasks)


def labeling_configuration(run: SavedRun) -> str:
    """Return the labeling configuration of Label Studio that fits the tasks, in XML."""
    from xml.sax.saxutils import quoteattr

    called = [run.curated.called(number) for number in run.curated.numbers]
    # What prints the configuration would take a name in backticks for a setting.
    choices = "".join(f"<Choice value={quoteattr(name, {'`': '&#96;'})}/>" for name in called)
    return (
        f'<View><Image name="{TO_NAME}" value="${TO_NAME}"/>'
        f'<Choices name="{FROM_NAME}" toName="{TO_NAME}">{choices}</Choices></View>'
    )


def _lines(run: SavedRun, files: Sequence[str]) -> Any:
    return zip(files, run.curated.clusters.tolist(), sureness(run).round(4).tolist(), strict=True)


def _write(path: Path, tree: Any) -> None:
    with new_file(path) as temporary_path:
        temporary_path.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")

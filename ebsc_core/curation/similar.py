"""Find the images of a run that are most similar to one of them, or to a new one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ebsc_core.curation.lookup import with_positions
from ebsc_core.curation.memberships import sureness
from ebsc_core.curation.neighbors import check_top
from ebsc_core.data.features.rows import Rows
from ebsc_core.data.images.matching import match_names
from ebsc_core.runs.predict import Predictor
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.errors import DataError, shortened
from ebsc_core.utils.matmul import full_precision
from ebsc_core.utils.progress import Progress


@dataclass(frozen=True)
class Similar:
    """Hold one image of a run and how similar it is."""

    position: int
    """The position in the run."""
    image: str
    """The name."""
    similarity: float
    """The cosine of the two rows."""
    cluster: int
    """The cluster of this image; -1 for none."""
    confidence: float


def find_similar(
    run: SavedRun, wanted: str, top: int, predictor: Callable[[], Predictor], progress: Progress
) -> list[Similar]:
    """Find the images of a run that are most similar to one image, in descending order.

    Parameters
    ----------
    wanted : str
        The name of an image of the run, its position (unless all names are numbers), or else an image file.
        A name may be shortened to the end of its path, if it remains the only one.
    top : int
        How many; all if there are fewer.
    predictor : callable
        Makes the run's network, which a new image file needs.

    Raises
    ------
    EbscError
        If ``top`` is no whole number from 1, if there is no such image, if it was held out (the run has no
        row of it), or if the run was on features and has no network for a file.
    """
    check_top(top)  # before a network is loaded
    place = _position(run.assignments.ids, wanted, bool(run.config.features))
    if place is None:
        query, own = _row_of_file(predictor(), wanted, progress), -1
    elif place >= run.assignments.fitted:
        raise DataError(f"{shortened(wanted)} was held out, so {run.path} has no row of it; give its file")
    else:
        query, own = run.rows.take(np.array([place]))[0], place
        number = run.curated.clusters[place]
        where = "no cluster" if number < 0 else f"cluster {run.curated.called(number)}"
        progress.note(f"image {shortened(run.assignments.ids[place])} of the run, in {where}")
    return _described(run, *similar_rows(run.rows, query, top, own))


def _position(ids: Sequence[str], wanted: str, are_rows: bool) -> int | None:
    """Return the position of a name, or of a number unless the names are numbers themselves; None if new."""
    if wanted in ids:
        return ids.index(wanted)
    (given,) = with_positions(ids, [wanted])
    if isinstance(given, int):
        return given if given < len(ids) else None
    # A new image may have the name of another one in another folder. Rows have no new images.
    if not are_rows and _file(wanted).is_file():
        return None
    place = int(match_names([wanted], ids)[0])
    return place if place >= 0 else None


def _row_of_file(predictor: Predictor, wanted: str, progress: Progress) -> Tensor:
    saved, file = predictor.run, _file(wanted)
    if not file.is_file():
        raise DataError(
            f"{shortened(wanted)} is no image of {saved.path} and no file; give a name or a position of its "
            "assignments.csv, or an image file"
        )
    if not predictor.takes_images:
        raise DataError(
            f"{saved.path} was made from features and has no network for {shortened(wanted)}; give a name or "
            "a position of its assignments.csv"
        )
    images = predictor.convert([str(file)])
    row = torch.cat([predictor.rows_of(table) for table in predictor.extract(images)])
    clusters, confidence = predictor.assign(row)
    joined = "no cluster" if clusters[0] < 0 else f"cluster {saved.curated.called(int(clusters[0]))}"
    progress.note(f"a new image, which joins {joined} (confidence {100 * confidence[0]:.0f} %)")
    return row[0].cpu()


def _file(wanted: str) -> Path:
    return Path(os.path.expanduser(wanted))


def similar_rows(rows: Rows, query: Tensor, top: int, own: int = -1) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows with the largest cosines, in one pass over all rows.

    Parameters
    ----------
    rows : Rows
        ``N`` rows of unit length.
    query : Tensor of shape (D,)
        A row of unit length.
    top : int
    own : int
        The position of the query among the rows, which is left out; -1 if it is none of them.

    Returns
    -------
    positions, cosines : ndarray of shape (min(top, N or N - 1),)
        In descending order.

    Raises
    ------
    ConfigError
        If ``top`` is no whole number from 1.
    """
    check_top(top)
    cosines = np.empty(len(rows), np.float32)
    for start, block in rows.blocks():
        with full_precision():
            cosines[start : start + len(block)] = (block @ query.to(block.device)).cpu().numpy()
    order = np.argsort(-cosines, kind="stable")
    order = order[order != own][:top]
    return order, cosines[order].clip(-1, 1)


def _described(run: SavedRun, positions: np.ndarray, cosines: np.ndarray) -> list[Similar]:
    found, clusters, sure = run.assignments, run.curated.clusters, sureness(run)
    return [
        Similar(at, found.ids[at], float(cosine), int(clusters[at]), float(sure[at]))
        for at, cosine in zip(positions.tolist(), cosines, strict=True)
    ]

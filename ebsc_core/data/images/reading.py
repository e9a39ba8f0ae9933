"""Read the images of a run from the data set that it names."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ebsc_core.config.schema import DataChoice
from ebsc_core.data.images.matching import match_names
from ebsc_core.data.images.source import ImageSource
from ebsc_core.data.images.workers import none_left_out
from ebsc_core.plugins.interfaces import DataContext
from ebsc_core.plugins.selection import Choice
from ebsc_core.utils.errors import DataError, printable
from ebsc_core.utils.paths import data_folder
from ebsc_core.utils.system import available_memory


def read_images(
    part: Choice,
    choice: DataChoice,
    seed: int,
    warn: Callable[[str], None],
    memory: int | None = None,
    download: bool = True,
    side: int | None = None,
) -> ImageSource:
    """Read the images that ``choice`` asks for, or a seeded sample of them.

    Parameters
    ----------
    part : Choice
        The data set.
    memory : int, optional
        The bytes of memory for images; by default, the available memory.
    download : bool
        Whether a data set that is missing may be downloaded.
    side : int, optional
        The side at which the backbone wants photos, in pixels.

    Raises
    ------
    DataError
        If the images cannot be read, or the component returns something else.
    """
    context = DataContext(
        root=Path(os.path.expanduser(choice.root)) if choice.root else data_folder(),
        skip_bad_images=choice.skip_bad_images,
        limit=choice.limit,
        seed=seed,
        memory=available_memory() if memory is None else memory,
        workers=choice.workers,
        warn=warn,
        download=download,
        side=side,
    )
    data = part.build(context)
    if not isinstance(data, ImageSource):
        raise DataError(f"data set {part.name!r} returned no ImageSet or other ImageSource")
    _require_names(data, part)
    return data.sample(choice.limit, seed)


def _require_names(data: ImageSource, part: Choice) -> None:
    """Require that ids and labels are what all that reads a run takes them for."""
    owner = part.component.described
    seen = set[str]()
    for name in data.ids:
        if not isinstance(name, str):
            raise DataError(f"{owner}: the id {name!r} is a {type(name).__name__}, not a text")
        if name in seen:
            raise DataError(f"{owner}: two images have the id {printable(name)!r}; each needs one of its own")
        seen.add(name)
    if data.labels is not None and data.labels.dtype.kind not in "iu":
        raise DataError(f"{owner}: labels are of type {data.labels.dtype}, not int64")


def read_pictures(
    part: Choice,
    ids: Sequence[str],
    match: Literal["names", "order"],
    seed: int,
    warn: Callable[[str], None],
    download: bool = True,
    advice: str = "repair it, or remove it together with its row",
) -> tuple[ImageSource, str]:
    """Read the images of rows of features, in the order of the rows, and say how they were matched.

    Parameters
    ----------
    part : Choice
        The data set that holds the images.
    ids : sequence of str
        The names of the rows; their positions if they have no names.
    match : str
        With ``names``, each row gets the image of its name; see
        :func:`ebsc_core.data.images.matching.match_names`. Only rows without names are matched by order.
        With ``order``, all rows are.
    advice : str
        What to do about an image that cannot be read.

    Raises
    ------
    DataError
        If a named row has no image of its name, or if rows are matched by order and the images are not as
        many.
    """
    with none_left_out(advice):
        images = read_images(part, DataChoice(), seed, warn, download=download)
    names = images.ids
    numbered = all(name == str(row) for row, name in enumerate(ids))
    if match == "names":
        places = match_names(ids, names)
        if (places >= 0).all():
            return images.take(places), f"{images.name}: an image for each row, all by name"
        if not numbered:
            row = int(np.flatnonzero(places < 0)[0])
            raise DataError(
                f"{images.name}: {np.count_nonzero(places >= 0)} of {len(ids)} rows have an image of their "
                f"name; {printable(ids[row])!r} has none (an image is called {printable(names[0])!r}); "
                "correct the names, or pass `features.match=order` to match by order"
            )
    if len(images) != len(ids):
        raise DataError(
            f"{images.name}: there are {len(images)} images for {len(ids)} rows, which cannot be matched by "
            "order"
        )
    why = "the rows have no names" if match == "names" else "as asked"
    return images, f"{images.name}: an image for each row, by order ({why})"

"""Read the images of a run from the data set that it names."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ebsc_core.config.schema import DataChoice
from ebsc_core.data.images.source import ImageSource
from ebsc_core.plugins.interfaces import DataContext
from ebsc_core.plugins.selection import Choice
from ebsc_core.utils.errors import DataError
from ebsc_core.utils.paths import user_cache
from ebsc_core.utils.system import available_memory


def read_images(
    part: Choice,
    choice: DataChoice,
    seed: int,
    warn: Callable[[str], None],
    memory: int | None = None,
) -> ImageSource:
    """Read the images that ``choice`` asks for, or a seeded sample of them.

    Parameters
    ----------
    part : Choice
        The data set.
    memory : int, optional
        The bytes of memory for images; by default, the available memory.

    Raises
    ------
    DataError
        If the images cannot be read, or the component returns something else.
    """
    context = DataContext(
        root=Path(os.path.expanduser(choice.root)) if choice.root else user_cache() / "data",
        skip_bad_images=choice.skip_bad_images,
        limit=choice.limit,
        seed=seed,
        memory=available_memory() if memory is None else memory,
        workers=choice.workers,
        warn=warn,
    )
    data = part.build(context)
    if not isinstance(data, ImageSource):
        raise DataError(f"data set {part.name!r} returned no ImageSet or other ImageSource")
    return data.sample(choice.limit, seed)


def read_pictures(part: Choice, ids: Sequence[str], seed: int, warn: Callable[[str], None]) -> ImageSource:
    """Read the images of rows of features, in the order of the rows.

    Parameters
    ----------
    part : Choice
        The data set that holds the images.
    ids : sequence of str
        The names of the rows. Images are matched by name if every row has an image of its name. Otherwise,
        or if the rows are numbered, they are matched by order.

    Raises
    ------
    DataError
        If the names do not match and the number of images differs from the number of rows.
    """
    images = read_images(part, DataChoice(), seed, warn)
    places = {name: place for place, name in enumerate(images.ids)}
    numbered = all(name == str(row) for row, name in enumerate(ids))
    if not numbered and all(name in places for name in ids):
        return images.take(np.array([places[name] for name in ids], dtype=np.int64))
    if len(images) != len(ids):
        raise DataError(
            f"{images.name}: there are {len(images)} images for {len(ids)} rows, and their names differ"
        )
    return images

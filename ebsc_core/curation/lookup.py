"""Look up images of a run by their names or positions."""

from __future__ import annotations

import csv
import operator
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ebsc_core.data.features.csv_files import opened_table
from ebsc_core.data.images.matching import match_names
from ebsc_core.utils.errors import ConfigError, DataError, fault_of, first_of, shortened

# The column of names in all tables that are written here.
IMAGE = "image"
# So many images that are not found are named.
NAMED = 3
# No position has more digits.
MAX_DIGITS = 18


def positions_of(ids: Sequence[str], images: Iterable[int | str]) -> list[int]:
    """Return the positions of images, each given by its position or by its name, ascending and once.

    A name may be shortened to the end of its path, if it remains the only one. A text that is a number is a
    position, unless it is a name.

    Raises
    ------
    ConfigError
        If there is no such image, or several have this name.
    """
    given = with_positions(ids, images)
    names = [image for image in given if isinstance(image, str)]
    found = {_place(image, len(ids)) for image in given if not isinstance(image, str)}
    count = Counter(ids)
    if twice := [shortened(name) for name in names if count[name] > 1]:
        raise ConfigError(
            f"several images are called {first_of(twice, NAMED)}; give positions in place of names"
        )
    places = match_names(names, ids).tolist() if names else []
    if missing := [shortened(name) for name, place in zip(names, places, strict=True) if place < 0]:
        raise ConfigError(
            f"the run has no image {first_of(missing, NAMED)}, or several whose paths end like this"
        )
    return sorted(found.union(places))


def read_images(path: Path) -> list[str]:
    """Read names of images from the column ``image`` of a .csv file, as the tables of a run have it.

    Raises
    ------
    DataError
        If the file cannot be read or has no such column or no line.
    """
    try:
        with opened_table(path) as (file, delimiter):
            lines = csv.DictReader(file, delimiter=delimiter)
            if IMAGE not in (lines.fieldnames or ()):
                raise DataError(
                    f"{path} has no column {IMAGE!r}; give a .csv file whose first line names one"
                )
            found = [name for line in lines if (name := line[IMAGE])]
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {fault_of(error)}") from error
    if not found:
        raise DataError(f"{path} names no images below its first line")
    return found


def with_positions(ids: Sequence[str], images: Iterable[int | str]) -> list[int | str]:
    """Return the images with texts that are numbers, and no names, as positions; none if all names are."""
    known = set(ids)
    if all(map(str.isdecimal, known)):
        return list(images)

    def is_position(image: int | str) -> bool:
        return (
            isinstance(image, str) and image.isdecimal() and len(image) <= MAX_DIGITS and image not in known
        )

    return [int(image) if is_position(image) else image for image in images]


def _place(position: int, count: int) -> int:
    try:
        place = operator.index(position)
    except TypeError:
        raise ConfigError(f"images are given by names or positions, not by {position!r}") from None
    if not 0 <= place < count:
        raise ConfigError(f"the run has no image at position {place}; it has {count}")
    return place

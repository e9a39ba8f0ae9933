"""Read the images of a finished run again, to show them or to use them together with new ones."""

from __future__ import annotations

from collections.abc import Callable
from operator import eq

import numpy as np

from ebsc_core.config.schema import ComponentChoice, RunConfig
from ebsc_core.data.images.reading import read_images, read_pictures
from ebsc_core.data.images.run_images import RunImages
from ebsc_core.data.images.source import ImageSource
from ebsc_core.data.images.split import split
from ebsc_core.data.images.workers import RESTORE, none_left_out
from ebsc_core.plugins.kinds import Kind
from ebsc_core.plugins.registry import Registry, UnknownComponentError
from ebsc_core.plugins.selection import choose
from ebsc_core.runs.store.compare import are_positions
from ebsc_core.runs.store.saved import Assignments, SavedRun
from ebsc_core.utils.errors import ConfigError, DataError, first_of, shortened

# So many images that are missing are named.
NAMED = 3
# What a command does about images that cannot be found.
CURE = "`data.name` says where they are now"


@none_left_out()
def read_again(
    run: SavedRun,
    registry: Registry,
    warn: Callable[[str], None],
    note: Callable[[str], None] = lambda line: None,
    cure: str = CURE,
) -> RunImages:
    """Read the images of a run through its own data component, streamed if possible.

    Images that have names are found by these, and those that have come since are left out.

    A run directory may come from somebody else. So ``note`` hears what it names before that is read, and
    nothing is downloaded. ``cure`` says in an error what the caller can do about images that cannot be found.

    Raises
    ------
    EbscError
        If the images no longer exist, or are not those of the run.
    """
    try:
        images = (_of_features if run.config.features else _of_images)(run, registry, warn, note)
    except UnknownComponentError as error:
        if run.images is None and _were_in_memory(run):
            raise DataError(
                f"the images of the run were in memory, and are in no known file; {cure}"
            ) from None
        raise DataError(f"the images of the run cannot be found: {error}; {cure}") from error
    except ConfigError as error:
        if run.images is None:
            raise
        raise DataError(
            f"{run.images} is of another kind than {_former(run)}, where the images of the run were; give "
            "the place where that is now, or a copy of it"
        ) from error
    if run.images is not None:
        note("images are told by their names alone")
    return images


def _were_in_memory(run: SavedRun) -> bool:
    """Return whether a program gave the images themselves, so that no component has read them."""
    made_by = run.provenance.get("parts", {})
    return not run.config.features and bool(made_by) and "data" not in made_by


def _former(run: SavedRun) -> str:
    """Return where the images were when the run was made."""
    section, option = ("features", "images") if run.config.features else ("data", "name")
    return shortened(str(run.tables.get(section, {}).get(option) or "the default data set"))


def _of_images(
    run: SavedRun, registry: Registry, warn: Callable[[str], None], note: Callable[[str], None]
) -> RunImages:
    """Read the images of a run on images."""
    config, lines = run.config, run.assignments
    where = f" in {config.data.root}" if config.data.root else ""
    note(f"reading the images of the run again: {config.data.name or 'the default data set'}{where}")
    side = _side(run)
    available = _read(config, registry, warn, side)
    if config.protocol == "train-test":
        images = RunImages(*split(available, config.test_share, config.seed), again=True)
    else:
        images = RunImages(available, again=True)
    if len(images) == len(lines.ids) and all(map(eq, images.ids(), lines.ids)):
        return images
    if config.data.limit is not None:  # a sample of other images is another one
        unlimited = config.data.model_copy(update={"limit": None})
        available = _read(config.model_copy(update={"data": unlimited}), registry, warn, side)
    return _by_name(available, lines, note)


def _by_name(available: ImageSource, lines: Assignments, note: Callable[[str], None]) -> RunImages:
    """Find the images of a run among others by their names."""
    place = {name: position for position, name in enumerate(available.ids)}
    if are_positions(lines.ids) or len(place) < len(available):
        raise DataError(f"{available.name} holds other images than the run was made of")
    if missing := [name for name in lines.ids if name not in place]:
        count = f"{len(missing)} of the {len(lines.ids)} images of the run"
        raise DataError(f"{count} are not in {available.name} now: {first_of(missing, NAMED)}")
    if new := len(available) - len(lines.ids):
        note(f"{new} images that the run has not seen are left out")
    positions = np.array([place[name] for name in lines.ids])
    fitted, held_out = positions[: lines.fitted], positions[lines.fitted :]
    return RunImages(available.take(fitted), available.take(held_out) if len(held_out) else None, again=True)


def _of_features(
    run: SavedRun, registry: Registry, warn: Callable[[str], None], note: Callable[[str], None]
) -> RunImages:
    """Read the images that belong to a run on features."""
    assert run.config.features
    choice = run.config.features
    name = choice.images
    if name is None:
        raise DataError("the run used features, and no images were named (`features.images`)")
    note(f"reading the images of the run again: {name}")
    images = choose(registry, Kind.DATA, ComponentChoice(name=name))
    ids, seed = run.assignments.ids, run.config.seed
    found, _ = read_pictures(images, ids, choice.match, seed, warn, download=False, advice=RESTORE)
    return RunImages(found, again=True)


def _side(run: SavedRun) -> int | None:
    """Return the larger side of the images as the run saw them; None if an older version made it."""
    images = run.provenance.get("images")
    return max(images["height"], images["width"]) if images else None


def _read(
    config: RunConfig, registry: Registry, warn: Callable[[str], None], side: int | None
) -> ImageSource:
    """Read images that are no larger than ``side``, since the backbone that set this limit is not asked."""
    choice = config.data.model_copy(update={"workers": 0})
    data = choose(registry, Kind.DATA, choice)
    try:
        # Only a few images will be used; images that can be streamed need not be read completely.
        return read_images(data, choice, config.seed, warn, memory=0, download=False, side=side)
    except DataError:
        return read_images(data, choice, config.seed, warn, download=False, side=side)

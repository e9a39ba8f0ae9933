"""Read the images of a finished run again, to show them or to use them together with new ones."""

from __future__ import annotations

from collections.abc import Callable

from ebsc_core.config.schema import ComponentChoice, RunConfig
from ebsc_core.data.images.reading import read_images, read_pictures
from ebsc_core.data.images.run_images import RunImages
from ebsc_core.data.images.source import ImageSource
from ebsc_core.data.images.split import split
from ebsc_core.data.images.workers import none_left_out
from ebsc_core.plugins.kinds import Kind
from ebsc_core.plugins.registry import Registry
from ebsc_core.plugins.selection import choose
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.errors import DataError


@none_left_out()
def read_again(
    run: SavedRun,
    registry: Registry,
    warn: Callable[[str], None],
    note: Callable[[str], None] = lambda line: None,
) -> RunImages:
    """Read the images of a run through its own data component, streamed if possible.

    A run directory may come from somebody else. So ``note`` hears what it names before that is read, and
    nothing is downloaded.

    Raises
    ------
    EbscError
        If the images no longer exist, or are not those of the run.
    """
    config, lines = run.config, run.assignments
    if config.features:
        return _of_features(run, registry, warn, note)
    where = f" in {config.data.root}" if config.data.root else ""
    note(f"reading the images of the run again: {config.data.name or 'the default data set'}{where}")
    available = _read(config, registry, warn)
    if config.protocol == "train-test":
        images = RunImages(*split(available, config.test_share, config.seed), again=True)
    else:
        images = RunImages(available, again=True)
    if len(images) != len(lines.ids):
        raise DataError(f"{available.name} holds {len(images)} images now, the run had {len(lines.ids)}")
    if any(now != then for now, then in zip(images.ids(), lines.ids, strict=True)):
        raise DataError(f"{available.name} holds other images than the run was made of")
    return images


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
    found, _ = read_pictures(images, ids, choice.match, seed, warn, download=False)
    return RunImages(found, again=True)


def _read(config: RunConfig, registry: Registry, warn: Callable[[str], None]) -> ImageSource:
    choice = config.data.model_copy(update={"workers": 0})
    data = choose(registry, Kind.DATA, choice)
    try:
        # Only a few images will be used; images that can be streamed need not be read completely.
        return read_images(data, choice, config.seed, warn, memory=0, download=False)
    except DataError:
        return read_images(data, choice, config.seed, warn, download=False)

"""What every data set, and every reader of a file type, owes the framework."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from ebsc_core.data.images.source import ImageSource
from ebsc_core.plugins.interfaces import DataContext
from ebsc_core.plugins.registry import Kind
from ebsc_core.testing import common
from ebsc_core.testing.checks import Contract, require
from ebsc_core.testing.subject import Subject
from ebsc_core.utils.paths import user_cache

# Images looked at; a data set of more gives a sample.
MAX_IMAGES = 64
CPU = torch.device("cpu")


class DataSubject(Subject):
    """A data set under test."""

    def build(self) -> ImageSource:
        """Opened anew; of many images a seeded sample, as with ``data.limit``."""
        root = self.root or user_cache() / "data"
        opened = self.made(DataContext(root=root, limit=MAX_IMAGES, workers=0))
        return opened.sample(MAX_IMAGES, 0) if isinstance(opened, ImageSource) else opened


contract = Contract(Kind.DATA, DataSubject)


def read(source: ImageSource, *plan: Iterable[int]) -> Tensor:
    """The images at these positions, batch by batch, in one tensor; all of them if there are no batches."""
    wanted = plan or (range(len(source)),)
    return torch.cat([batch.clone() for batch in source.batches(map(_positions, wanted), CPU)])


def _positions(batch: Iterable[int]) -> Tensor:
    return torch.tensor(list(batch), dtype=torch.int64)


def _require_same(actual: Tensor, expected: Tensor, what: str) -> None:
    same = actual.shape == expected.shape and torch.equal(actual, expected)
    require(same, f"{what} (shapes {tuple(actual.shape)} and {tuple(expected.shape)})")


@contract.basic
def can_be_opened(part: DataSubject) -> None:
    """`factory(options, context)` returns an `ebsc_core.ImageSet` or another `ImageSource` with images in it.

    That is how a run opens it; what it calls later is declared there.
    """
    opened = part.build()
    require(isinstance(opened, ImageSource), f"it returned a {type(opened).__name__}")
    with closing(opened):
        require(len(opened) > 0, "there are no images")


@contract.basic
def image_shape(part: DataSubject) -> None:
    """`shape` is (C, H, W), C being 1 or 3, and every batch of B images is (B, C, H, W).

    The backbone is built for that shape before the first image is seen.
    """
    with closing(part.build()) as source:
        shape = source.shape
        require(len(shape) == 3 and shape[0] in (1, 3) and min(shape) > 0, f"shape is {shape}")
        batch = next(iter(source.batches([_positions([0])], CPU)))
        common.require_shape(batch, (1, *shape), "a batch of one image")


@contract.basic
def image_dtype(part: DataSubject) -> None:
    """Images are uint8.

    The run turns them to [0, 1] on the device; floats would be four times as much to hold and to move.
    """
    with closing(part.build()) as source:
        dtype = next(iter(source.batches([_positions([0])], CPU))).dtype
        require(dtype == torch.uint8, f"they are {dtype}")


@contract.basic
def devices(part: DataSubject) -> None:
    """Batches are on the device that was asked for.

    Whatever trains is there.
    """
    for device in common.devices():
        with closing(part.build()) as source:
            actual = next(iter(source.batches([_positions([0])], device))).device
            require(actual == device, f"{device} was asked for, a batch came on {actual}")


@contract.check
def one_id_each(part: DataSubject) -> None:
    """`ids` has one text for each image, and no two are the same.

    assignments.csv names the images by them.
    """
    with closing(part.build()) as source:
        ids = list(source.ids)
        require(len(ids) == len(source), f"{len(ids)} ids for {len(source)} images")
        other = next((name for name in ids if not isinstance(name, str)), None)
        require(other is None, f"{other!r} is no text")
        require(len(set(ids)) == len(ids), f"only {len(set(ids))} of {len(ids)} ids are distinct")


@contract.check
def labels_fit(part: DataSubject) -> None:
    """`labels` is None, or int64 of shape (N,), each within `class_names` where those are given.

    Scores compare them with the clusters one by one. Nothing else ever sees them.
    """
    with closing(part.build()) as source:
        labels, names = source.labels, source.class_names
        if labels is None:
            return
        require(isinstance(labels, np.ndarray), f"labels are a {type(labels).__name__}")
        require(labels.shape == (len(source),), f"labels are {labels.shape} for {len(source)} images")
        require(labels.dtype == np.int64, f"labels are {labels.dtype}")
        if names is not None:
            within = bool(((labels >= 0) & (labels < len(names))).all())
            require(within, f"labels are from {labels.min()} to {labels.max()}, class_names has {len(names)}")


@contract.check
def any_order(part: DataSubject) -> None:
    """Images can be asked for in any order, and an image again in a later batch.

    Every epoch draws its own order.
    """
    with closing(part.build()) as source:
        order, n = list(range(len(source)))[::-1], len(source)
        actual = read(source, range(n), order[: n // 2], order[n // 2 :], [0, 0])
        _require_same(actual[n : 2 * n].flip(0), actual[:n], "in reverse order other images came")
        _require_same(actual[2 * n :], actual[[0, 0]], "the first image, asked for again, is another")


@contract.check
def can_be_read_again(part: DataSubject) -> None:
    """`batches` can be called any number of times, also after `close`, and gives the same images.

    Training goes through them once an epoch, extraction once more.
    """
    with closing(part.build()) as source:
        first = read(source)
        _require_same(read(source), first, "the second time other images came")
        source.close()
        _require_same(read(source), first, "after close() other images came")


@contract.check
def same_when_opened_again(part: DataSubject) -> None:
    """Opened again, it has the same images, ids and labels in the same order.

    The same seed is the same run; folders are listed in an order that changes unless it is sorted.
    """
    with closing(part.build()) as first, closing(part.build()) as second:
        _require_same(read(second), read(first), "other images came")
        require(list(first.ids) == list(second.ids), "the ids are others")
        same = first.labels is second.labels is None or np.array_equal(first.labels, second.labels)  # type: ignore[arg-type]
        require(same, "the labels are others")


@contract.check
def take_keeps_together(part: DataSubject) -> None:
    """`take(positions)` has the images, ids and labels at these positions, in this order.

    Samples and parts of the data are made that way; an image with another's label falsifies every score.
    """
    with closing(part.build()) as source:
        positions = np.arange(0, len(source), 3)[::-1].copy()
        taken = source.take(positions)
        _require_same(read(taken), read(source)[positions.tolist()], "the images are others")
        require(list(taken.ids) == [source.ids[i] for i in positions], "the ids are those of other images")
        if source.labels is not None:
            same = np.array_equal(taken.labels, source.labels[positions])  # type: ignore[arg-type]
            require(same, "the labels are those of other images")


@contract.check
def digest_is_stable(part: DataSubject) -> None:
    """`digest()` is the same each time, and another for other images.

    Trained features are found again by it: one that changes trains anew every time, one that does not gives a
    run the features of other images.
    """
    first, second = part.build().digest(), part.build().digest()
    require(isinstance(first, str) and bool(first), f"it is {first!r}")
    require(first == second, f"it was {first}, and {second} when opened again")
    source = part.build()
    if len(source) > 1:
        fewer = source.take(np.arange(len(source) - 1)).digest()
        require(fewer != first, "without the last image it is the same")


@contract.check
def info_fits(part: DataSubject) -> None:
    """`info()` has the shape of the images, and per channel the mean and deviation of values in [0, 1].

    The backbone normalises by them.
    """
    with closing(part.build()) as source:
        info, shape = source.info(), source.shape
        actual = (info.channels, info.height, info.width)
        require(actual == shape, f"info says {actual}, shape is {shape}")
        for what, values in (("means", info.mean), ("deviations", info.std)):
            fine = len(values) == shape[0] and all(0 <= value <= 1 for value in values)
            require(fine, f"the {what} of {shape[0]} channels are {values}")
        require(min(info.std) > 0, "a deviation is 0, by which would be divided")


@contract.check
def images_to_fit(part: DataSubject) -> None:
    """`to_fit()` has images in memory, uint8 of shape (M, C, H, W).

    Backbones that fit something, such as principal components, are told them.
    """
    with closing(part.build()) as source:
        actual = source.to_fit()
        require(actual.dtype == torch.uint8, f"they are {actual.dtype}")
        common.require_shape(actual, (len(actual), *source.shape), "what it returns")
        require(len(actual) > 0, "there are none")


common.add_options_checks(contract)

"""Check the contract of every data set and every reader of a file type."""

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

# The number of images that the checks look at; larger data sets are sampled.
MAX_IMAGES = 64
CPU = torch.device("cpu")


class DataSubject(Subject):
    """Hold a data set under test."""

    def build(self) -> ImageSource:
        """Open the data set again; if it is large, take a seeded sample, as with ``data.limit``."""
        root = self.root or user_cache() / "data"
        opened = self.made(DataContext(root=root, limit=MAX_IMAGES, workers=0))
        return opened.sample(MAX_IMAGES, 0) if isinstance(opened, ImageSource) else opened


contract = Contract(Kind.DATA, DataSubject)


def read(source: ImageSource, *plan: Iterable[int]) -> Tensor:
    """Read the images of these batches of positions into one tensor; without batches, read all images."""
    wanted = plan or (range(len(source)),)
    return torch.cat([batch.clone() for batch in source.batches(map(_positions, wanted), CPU)])


def _positions(batch: Iterable[int]) -> Tensor:
    return torch.tensor(list(batch), dtype=torch.int64)


def _require_same(actual: Tensor, expected: Tensor, what: str) -> None:
    same = actual.shape == expected.shape and torch.equal(actual, expected)
    require(same, f"{what} (shapes {tuple(actual.shape)} and {tuple(expected.shape)})")


@contract.basic
def can_be_opened(part: DataSubject) -> None:
    """Return an `ImageSet` or another `ImageSource` with images from `factory(options, context)`.

    A run opens the data set with this call. The class declares the methods that the run calls later.
    """
    opened = part.build()
    require(isinstance(opened, ImageSource), f"it returned a {type(opened).__name__}")
    with closing(opened):
        require(len(opened) > 0, "there are no images")


@contract.basic
def image_shape(part: DataSubject) -> None:
    """Set `shape` to (C, H, W), where C is 1 or 3, and yield batches of shape (B, C, H, W).

    The backbone is built for this shape before the first image is read.
    """
    with closing(part.build()) as source:
        shape = source.shape
        require(len(shape) == 3 and shape[0] in (1, 3) and min(shape) > 0, f"shape is {shape}")
        batch = next(iter(source.batches([_positions([0])], CPU)))
        common.require_shape(batch, (1, *shape), "a batch of one image")


@contract.basic
def image_dtype(part: DataSubject) -> None:
    """Yield uint8 images.

    The run scales them to [0, 1] on the device. Floats would need four times the memory and transfer time.
    """
    with closing(part.build()) as source:
        dtype = next(iter(source.batches([_positions([0])], CPU))).dtype
        require(dtype == torch.uint8, f"they are {dtype}")


@contract.basic
def devices(part: DataSubject) -> None:
    """Yield batches on the requested device.

    The network that trains on them is on that device.
    """
    for device in common.devices():
        with closing(part.build()) as source:
            actual = next(iter(source.batches([_positions([0])], device))).device
            require(actual == device, f"the batch was requested on {device} and is on {actual}")


@contract.check
def one_id_each(part: DataSubject) -> None:
    """Give each image one text in `ids`; all texts differ.

    `assignments.csv` names the images by their ids.
    """
    with closing(part.build()) as source:
        ids = list(source.ids)
        require(len(ids) == len(source), f"{len(ids)} ids for {len(source)} images")
        other = next((name for name in ids if not isinstance(name, str)), None)
        require(other is None, f"{other!r} is no text")
        require(len(set(ids)) == len(ids), f"only {len(set(ids))} of {len(ids)} ids are distinct")


@contract.check
def labels_fit(part: DataSubject) -> None:
    """Set `labels` to None, or to int64 of shape (N,) with values within `class_names` if given.

    The scores compare labels and clusters image by image. Nothing else uses the labels.
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
    """Yield images in any requested order; an image can occur again in a later batch.

    Every epoch draws its own order.
    """
    with closing(part.build()) as source:
        order, n = list(range(len(source)))[::-1], len(source)
        actual = read(source, range(n), order[: n // 2], order[n // 2 :], [0, 0])
        _require_same(actual[n : 2 * n].flip(0), actual[:n], "in reverse order the images differ")
        _require_same(actual[2 * n :], actual[[0, 0]], "the first image differs when it is requested again")


@contract.check
def can_be_read_again(part: DataSubject) -> None:
    """Yield the same images however often `batches` is called, also after `close`.

    Training reads all images once in each epoch, and feature extraction reads them once more.
    """
    with closing(part.build()) as source:
        first = read(source)
        _require_same(read(source), first, "the second time the images differ")
        source.close()
        _require_same(read(source), first, "after close() the images differ")


@contract.check
def same_when_opened_again(part: DataSubject) -> None:
    """Keep the same images, ids and labels in the same order when the data set is opened again.

    The same seed must give the same run. Folders are listed in an arbitrary order unless the reader sorts
    them.
    """
    with closing(part.build()) as first, closing(part.build()) as second:
        _require_same(read(second), read(first), "other images came")
        require(list(first.ids) == list(second.ids), "the ids differ")
        same = first.labels is second.labels is None or np.array_equal(first.labels, second.labels)  # type: ignore[arg-type]
        require(same, "the labels differ")


@contract.check
def take_keeps_together(part: DataSubject) -> None:
    """Return from `take(positions)` the images, ids and labels at these positions, in this order.

    The framework makes samples and splits this way. An image with a wrong label falsifies every score.
    """
    with closing(part.build()) as source:
        positions = np.arange(0, len(source), 3)[::-1].copy()
        taken = source.take(positions)
        _require_same(read(taken), read(source)[positions.tolist()], "the images differ")
        require(list(taken.ids) == [source.ids[i] for i in positions], "the ids are those of other images")
        if source.labels is not None:
            same = np.array_equal(taken.labels, source.labels[positions])  # type: ignore[arg-type]
            require(same, "the labels are those of other images")


@contract.check
def digest_is_stable(part: DataSubject) -> None:
    """Return the same `digest()` each time, and another one for other images.

    It is the key of trained features. If it varies, every run trains again. If it is the same for other
    images, a run uses wrong features.
    """
    first, second = part.build().digest(), part.build().digest()
    require(isinstance(first, str) and bool(first), f"it is {first!r}")
    require(first == second, f"it was {first}, and {second} when opened again")
    source = part.build()
    if len(source) > 1:
        fewer = source.take(np.arange(len(source) - 1)).digest()
        require(fewer != first, "it stays the same without the last image")


@contract.check
def info_fits(part: DataSubject) -> None:
    """Return from `info()` the shape, and for each channel mean and deviation of values in [0, 1].

    The backbone normalises the images with them.
    """
    with closing(part.build()) as source:
        info, shape = source.info(), source.shape
        actual = (info.channels, info.height, info.width)
        require(actual == shape, f"info says {actual}, shape is {shape}")
        for what, values in (("means", info.mean), ("deviations", info.std)):
            fine = len(values) == shape[0] and all(0 <= value <= 1 for value in values)
            require(fine, f"the {what} of {shape[0]} channels are {values}")
        require(min(info.std) > 0, "a deviation is 0, but the backbone divides by it")


@contract.check
def images_to_fit(part: DataSubject) -> None:
    """Return from `to_fit()` images in memory, uint8 of shape (M, C, H, W).

    Backbones that fit something, such as principal components, receive these images.
    """
    with closing(part.build()) as source:
        actual = source.to_fit()
        require(actual.dtype == torch.uint8, f"they are {actual.dtype}")
        common.require_shape(actual, (len(actual), *source.shape), "what it returns")
        require(len(actual) > 0, "there are none")


common.add_options_checks(contract)

"""Convert images that a Python program holds in arrays, tensors, lists or data sets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from os import PathLike
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ebsc_core.data.features.source import MISSING
from ebsc_core.data.images.arrays import to_uint8
from ebsc_core.data.images.in_memory import ImageSet
from ebsc_core.data.images.paths import check_memory, read_paths
from ebsc_core.data.images.pil import channels_of, eight_bit, is_gray
from ebsc_core.data.images.source import ImageSource
from ebsc_core.utils.arrays import shared_tensor
from ebsc_core.utils.errors import DataError, told

IN_MEMORY = "images in memory"
"""The name of images in memory in the messages of a run."""
# NumPy's kinds of dtypes that may hold paths.
TEXTS = "OUT"
# The names of the image in the items of a data set, in the order in which they are looked for.
IMAGE_KEYS = ("image", "img")


def given_images(
    images: Any, labels: Any = None, size: int | None = None, largest: int | None = None
) -> ImageSource:
    """Convert images in memory to an :class:`ImageSource`; their names are their paths or positions.

    Parameters
    ----------
    images : ImageSource, array, tensor, or data set
        An array or tensor ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)``, uint8 or floats in [0, 1].
        Or any object with a length and positions, such as a list or a map-style data set of torch or of
        Hugging Face. Its items are PIL pictures, arrays or tensors of one image each, paths of image files,
        tuples that begin with one of these, or mappings with one as ``image``. If the second entry of every
        tuple, or every ``label``, is a number, it is the class.
    labels : array-like of shape (N,), optional
        The classes, which only the scores use. They replace the classes of a data set.
    size : int, optional
        The side of images that are read from paths; by default, that of a folder of them.
    largest : int, optional
        The largest side of images that are read from paths, if ``size`` is not given.

    Raises
    ------
    DataError
        If the images have another type, have different sizes, or do not fit in memory.
    """
    if isinstance(images, ImageSource):
        if labels is not None:
            raise DataError(f"{images.name}: y is given, but an ImageSource has labels of its own")
        return images
    found, class_names = None, None
    ids: list[str] | None = None
    if isinstance(images, Tensor) or (isinstance(images, np.ndarray) and images.dtype.kind not in TEXTS):
        pixels = to_uint8(IN_MEMORY, _array(images))
    else:
        pixels, found, ids = _of_items(images, size, largest)
        class_names = _class_names(images, found)
    if labels is not None:
        found, class_names = classes_of(labels)
    names = ids or [str(position) for position in range(len(pixels))]
    return ImageSet(IN_MEMORY, shared_tensor(pixels), names, found, class_names)


def classes_of(labels: Any) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Return labels ``(N,)`` or ``(N, 1)`` as int64 ``(N,)``, and the class names if they are not numbers.

    Raises
    ------
    DataError
        If some are missing: they would be taken for a class of their own.
    """
    found = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if found.ndim == 2 and found.shape[1] == 1:  # a column of a table
        found = found[:, 0]
    if np.issubdtype(found.dtype, np.integer):
        return found.astype(np.int64), None
    given = found.ravel().tolist() if found.dtype.kind in "fO" else []
    if (missing := [str(label) in MISSING for label in given]).count(True):
        first = missing.index(True)
        raise DataError(
            f"{sum(missing)} of {len(missing)} labels are missing (label {first} is {given[first]!r}); "
            "give the label of each image, or none"
        )
    names, numbers = np.unique(found.astype(str), return_inverse=True)
    return numbers.astype(np.int64), tuple(map(str, names))


def _array(images: Tensor | np.ndarray) -> np.ndarray:
    if isinstance(images, np.ndarray):
        return images
    images = images.detach().cpu()
    return (images.float() if images.is_floating_point() else images).numpy()  # NumPy has no bfloat16


def _of_items(
    items: Any, size: int | None, largest: int | None
) -> tuple[np.ndarray, np.ndarray | None, list[str] | None]:
    """Return the pixels ``(N, C, H, W)`` uint8, the classes if all items have one, and paths if they are."""
    n = _count(items)
    if not n:
        raise DataError("there are no images")
    labels: list[int] = []
    images = _without_labels(items, n, labels)
    first = next(images)
    paths = None
    if isinstance(first, str | PathLike):
        paths = list(map(_path, chain([first], images), range(n)))
        pixels = read_paths(paths, size, largest)
    else:
        pixels = _held(chain([first], images), n)
    return pixels, np.array(labels, dtype=np.int64) if len(labels) == n else None, paths


def _without_labels(items: Any, n: int, labels: list[int]) -> Iterator[Any]:
    """Yield the image of each item, which is read once, and append its label if it has one."""
    for position in range(n):
        image, label = _taken_apart(_item(items, position))
        if label is not None:
            labels.append(label)
        yield image


def _path(image: Any, position: int) -> str:
    if not isinstance(image, str | PathLike):
        raise DataError(f"image {position} is a {type(image).__name__}, the first is a path; give one kind")
    return os.fsdecode(image)


def _held(images: Iterable[Any], n: int) -> np.ndarray:
    pixels = np.empty((n, 0, 0, 0), np.uint8)
    for position, image in enumerate(images):
        here = _pixels(image, f"image {position}")
        if not position:
            check_memory(n, here.nbytes)
            pixels = np.empty((n, *here.shape), np.uint8)
        if here.shape[1:] != pixels.shape[2:]:
            (height, width), (first_height, first_width) = here.shape[1:], pixels.shape[2:]
            raise DataError(
                f"image {position} is {height}x{width}, the first is {first_height}x{first_width}; resize "
                "all to one size"
            )
        if len(here) > pixels.shape[1]:  # the first colour image after grey ones
            pixels = np.repeat(pixels, len(here), axis=1)
        pixels[position] = here
    return pixels


def _count(items: Any) -> int:
    """Return the number of items; raise a DataError if this is not a data set."""
    known = hasattr(items, "__getitem__") and not isinstance(items, str | bytes | Mapping)
    try:
        if known:
            return len(items)
    except TypeError:
        pass
    kind = type(items).__name__
    cure = "give its .dataset" if hasattr(items, "dataset") else "see docs/python.md for what can be given"
    raise DataError(f"cannot take images from a {kind}, which has no length and positions; {cure}")


def _item(items: Any, position: int) -> Any:
    try:
        # A column of a table has positions beside its index.
        return (
            items.iloc[position]
            if getattr(items, "ndim", 0) == 1 and hasattr(items, "iloc")
            else items[position]
        )
    except (LookupError, TypeError, NotImplementedError) as error:  # a table, a data set without positions
        raise DataError(
            f"cannot take image {position} from a {type(items).__name__} ({told(error)}); see docs/python.md "
            "for what can be given"
        ) from error


def _taken_apart(item: Any) -> tuple[Any, int | None]:
    if isinstance(item, Mapping):
        key = next((key for key in IMAGE_KEYS if key in item), None)
        if key is None:
            raise DataError(
                f"an item has no {' or '.join(map(repr, IMAGE_KEYS))}, but {', '.join(map(repr, item))}; "
                "rename the one that is the image"
            )
        return _taken_apart((item[key], item.get("label")))
    if not isinstance(item, tuple | list) or not item:
        return item, None
    label = item[1] if len(item) > 1 else None
    if isinstance(label, Tensor | np.ndarray) and label.ndim == 0:
        label = label.item()
    return item[0], int(label) if isinstance(label, int | np.integer) else None


def _pixels(image: Any, where: str) -> np.ndarray:
    """Convert one image to ``(C, H, W)`` uint8."""
    if isinstance(image, Image.Image):
        return channels_of(eight_bit(image, "L" if is_gray(image) else "RGB"))
    if isinstance(image, Tensor | np.ndarray):
        return to_uint8(where, _array(image)[None])[0]
    raise DataError(f"{where} is a {type(image).__name__}; expected a picture of PIL, an array or a tensor")


def _class_names(images: Any, labels: np.ndarray | None) -> tuple[str, ...] | None:
    """Return the class names of a data set, if they fit its labels."""
    names = getattr(images, "classes", None)
    features = getattr(images, "features", None)  # of Hugging Face
    if names is None and isinstance(features, Mapping):
        names = getattr(features.get("label"), "names", None)
    if (
        labels is None
        or not isinstance(names, list | tuple)
        or not 0 <= labels.min() <= labels.max() < len(names)
    ):
        return None
    return tuple(map(str, names))

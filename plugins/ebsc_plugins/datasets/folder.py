"""Read images of any size, grey or colour, from a folder or a zip of files."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from ebsc_core import (
    BadImage,
    ComponentSpec,
    DataContext,
    DataError,
    ImageHeader,
    ImageReader,
    ImageSet,
    ImageSource,
    Options,
    StreamedImages,
    Workers,
    common_shape,
    decode_image,
    fault_of,
    printable,
    read_header,
    sample_positions,
    unreadable,
    warn_unreadable,
)
from ebsc_plugins.datasets.files import UNREADABLE, Files, FolderFiles, ZipFiles

# Of more streamed images, the sizes of so many decide; StreamedImages takes its figures from as many.
LOOKED_AT = 1024
# Names of folders like 2019, 2019-07 or 20190731, which are hardly classes.
DATE = re.compile(r"(18|19|20)\d\d([-_. ]?\d\d){0,2}")
# So many classes are named.
NAMED = 4


class FolderOptions(Options):
    """Configure how a folder or zip of images is read."""

    size: int | None = Field(None, ge=4)
    """Every image is scaled and cropped to this side, in pixels: the shorter side is scaled, and the centre
    is kept. By default, images that share one size of at most 224 pixels keep it; others get their median
    shorter side, at most 224. A pretrained backbone has its own limit in place of the 224 pixels."""
    labels: Literal["folders", "none"] = "folders"
    """With ``folders``, the subfolders of the first level that branches are classes, used for scoring
    only."""
    stream: Literal[True, False, "auto"] = "auto"
    """Images are read when a batch needs them, instead of all at the start. By default, this happens if
    they do not fit in memory. A sample of 1,024 images then determines the size."""


def resolve_folder(name: str) -> ComponentSpec | None:
    """Accept the path of any existing folder."""
    path = Path(os.path.expanduser(name))
    return _spec(name, path, FolderFiles) if path.is_dir() else None


def resolve_zip(name: str) -> ComponentSpec | None:
    """Accept any path that ends in ``.zip`` and is not a folder."""
    path = Path(os.path.expanduser(name))
    return _spec(name, path, ZipFiles) if path.suffix.lower() == ".zip" and not path.is_dir() else None


def _spec(name: str, path: Path, list_files: Callable[[Path], Files]) -> ComponentSpec:
    def read(options: FolderOptions, context: DataContext) -> ImageSource:
        return read_images(list_files(path), options, context)

    return ComponentSpec(name, f"images in {path}", read, options=FolderOptions)


def read_images(files: Files, options: FolderOptions, context: DataContext) -> ImageSource:
    """Read all images (or the sample that ``context`` asks for) at one size, in memory or streamed.

    Raises
    ------
    DataError
        If there are no images, if an image is unreadable and bad images are not skipped, or if the images
        do not fit in memory and must not be streamed.
    """
    if not len(files.names):
        why = files.left_out or "it is empty"
        raise DataError(f"{files.path} holds no images that can be read: {why}")
    if files.left_out:
        context.warn(f"left out of {files.path}: {files.left_out}")
    chosen = sample_positions(len(files.names), context.limit, context.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns of odd but readable files; filters hold for all threads
        if options.stream is True or (
            options.stream == "auto" and _too_large(files, chosen, options, context)
        ):
            return _stream(files, chosen, options, context)
        return _hold(files, chosen, options, context)


def _hold(files: Files, chosen: np.ndarray, options: FolderOptions, context: DataContext) -> ImageSet:
    """Decode all images now."""
    chosen, headers = _good(files, chosen, _all_headers(files, chosen, context), context)
    _say_pages(files, headers, context)
    shape = common_shape(headers, options.size, context.side)
    _check_memory(files, shape, len(chosen), context.memory)
    images = torch.empty(len(chosen), *shape, dtype=torch.uint8)
    bad = _each(partial(_fill, images.numpy(), files, chosen), np.arange(len(chosen)))
    chosen, rows = _good(files, chosen, [error or row for row, error in enumerate(bad)], context)
    if not rows:
        raise DataError(f"{files.path} holds no readable image")
    for place, row in enumerate(rows):  # in place: a copy of all images would need their memory again
        if place != row:
            images[place] = images[row]
    images = images[: len(rows)]
    ids = [files.names[position] for position in chosen]
    return ImageSet(_name(files), images, ids, **_classes(files, chosen, options, context))


def _stream(files: Files, chosen: np.ndarray, options: FolderOptions, context: DataContext) -> StreamedImages:
    """Decode no image yet: the headers of a sample determine the common shape."""
    headers = _sample_headers(files, chosen)
    if not context.skip_bad_images:  # otherwise `readable` tries all images below
        _good(files, *headers, context)
    good = [header for header in headers[1] if isinstance(header, ImageHeader)]
    if not good:
        raise DataError(f"{files.path} holds no readable image")
    _say_pages(files, good, context)
    reader = FileReader(files, common_shape(good, options.size, context.side))
    workers = Workers(reader, context.workers)
    images = StreamedImages(
        _name(files), reader, workers, chosen, **_classes(files, chosen, options, context)
    )
    return images.readable(context.warn) if context.skip_bad_images else images


class FileReader(ImageReader):
    """Decode image files one by one."""

    def __init__(self, files: Files, shape: tuple[int, int, int]) -> None:
        self.files, self.shape = files, shape

    def name(self, position: int) -> str:
        return self.files.names[position]

    def where(self, position: int) -> str:
        return self.files.where(position)

    def read(self, position: int) -> np.ndarray:
        return _decode(self.files, self.shape, position)

    def mark(self, positions: np.ndarray) -> bytes:
        names = "\0".join(self.files.names[position] for position in positions)
        return names.encode("utf-8", "surrogateescape") + self.files.states(positions).tobytes()


def _each(task: Callable[[int], Any], positions: np.ndarray) -> list:
    with ThreadPoolExecutor() as pool:
        return list(pool.map(task, positions.tolist()))


def _header(files: Files, position: int) -> ImageHeader | BadImage:
    try:
        file, _ = files.open(position)
    except UNREADABLE as error:
        return BadImage(fault_of(error))
    with file:
        return read_header(file)


def _decode(files: Files, shape: tuple[int, int, int], position: int) -> np.ndarray:
    try:
        file, stored = files.open(position)
    except UNREADABLE as error:
        raise BadImage(fault_of(error)) from None
    with file:
        return decode_image(file, stored, shape)


def _fill(images: np.ndarray, files: Files, chosen: np.ndarray, row: int) -> BadImage | None:
    """Decode an image to its row; return what is wrong with it, if anything is."""
    try:
        images[row] = _decode(files, images.shape[1:], int(chosen[row]))
    except BadImage as error:
        return error
    return None


def _good(files: Files, chosen: np.ndarray, results: list, context: DataContext) -> tuple[np.ndarray, list]:
    """Return the readable results and their positions; warn of the others, or raise an error."""
    bad = [(int(p), r) for p, r in zip(chosen, results, strict=True) if isinstance(r, BadImage)]
    if bad and not context.skip_bad_images:
        raise unreadable(files.where(bad[0][0]), str(bad[0][1]), len(bad))
    warn_unreadable([(files.where(position), str(reason)) for position, reason in bad], context.warn)
    kept = [not isinstance(result, BadImage) for result in results]
    return chosen[kept], [result for result in results if not isinstance(result, BadImage)]


def _all_headers(files: Files, chosen: np.ndarray, context: DataContext) -> list[ImageHeader | BadImage]:
    if len(chosen) > LOOKED_AT:  # what is no set of images is refused at once
        some, headers = _sample_headers(files, chosen)
        if not context.skip_bad_images:
            _good(files, some, headers, context)
        elif not any(isinstance(header, ImageHeader) for header in headers):
            raise DataError(f"{files.path} holds no readable image among {len(headers):,} looked at")
    return _each(partial(_header, files), chosen)


def _sample_headers(files: Files, chosen: np.ndarray) -> tuple[np.ndarray, list[ImageHeader | BadImage]]:
    some = chosen[sample_positions(len(chosen), LOOKED_AT, seed=0)]
    return some, _each(partial(_header, files), some)


def _say_pages(files: Files, headers: list[ImageHeader], context: DataContext) -> None:
    """Say how many files hold several pictures."""
    if count := sum(header.pages for header in headers):
        context.warn(
            f"{count:,} of {len(headers):,} files looked at in {files.path} hold{'s' * (count == 1)} several "
            "pages or frames; the first one is the image"
        )


def _too_large(files: Files, chosen: np.ndarray, options: FolderOptions, context: DataContext) -> bool:
    """Estimate from a sample whether the images are too large for memory."""
    largest = (3, *common_shape([], options.size, context.side)[1:])
    if context.memory is None or _bytes_held(largest, len(chosen)) <= context.memory:
        return False  # they fit at any size
    headers = [header for header in _sample_headers(files, chosen)[1] if isinstance(header, ImageHeader)]
    shape = common_shape(headers, options.size, context.side)
    return _bytes_held(shape, len(chosen)) > context.memory


def _bytes_held(shape: tuple[int, int, int], n: int) -> int:
    return n * math.prod(shape) * 5 // 4  # the rest of the run needs some memory, too


def _check_memory(files: Files, shape: tuple[int, int, int], n: int, available: int | None) -> None:
    needed = _bytes_held(shape, n)
    if available is not None and needed > available:
        raise DataError(
            f"{files.path}: {n} images need {needed / 2**30:.1f} GiB, {available / 2**30:.1f} GiB are free; "
            "use `data.limit`, a smaller `data.size`, or `data.stream=true`"
        )


def _name(files: Files) -> str:
    return files.path.name or str(files.path)


def _classes(
    files: Files, chosen: np.ndarray, options: FolderOptions, context: DataContext
) -> dict[str, Any]:
    """Return labels, class names and where they are from, if there are any."""
    if options.labels == "none":
        return {}
    folders = [name.rpartition("/")[0] for name in files.names]
    class_of = _branches(set(folders))
    if class_of is None:
        return {}
    # Class numbers come from all names, not from the sample's: a class has the same number in every sample.
    class_names = sorted(set(class_of.values()))
    number = {class_name: i for i, class_name in enumerate(class_names)}
    labels = np.array([number[class_of[folders[i]]] for i in chosen], dtype=np.int64)
    some = ", ".join(class_names[:NAMED]) + (" …" if len(class_names) > NAMED else "")
    if len(class_names) > 1 and all(map(DATE.fullmatch, class_names)):
        context.warn(
            f"the folders {some} are taken for classes and look like dates; if they are no classes, pass "
            "`data.labels=none`"
        )
    return {
        "labels": labels,
        "class_names": tuple(class_names),
        "labels_from": f"the folders {printable(some)}; `data.labels=none` ignores them",
    }


def _branches(folders: set[str]) -> dict[str, str] | None:
    """Return the part of each folder's path at the first level that branches.

    Return None if no level branches, or if images lie beside the folders of that level.
    """
    parts = {folder: PurePosixPath(folder).parts for folder in folders}
    level = 0
    while all(len(p) > level for p in parts.values()) and len({p[level] for p in parts.values()}) == 1:
        level += 1
    if not all(len(p) > level for p in parts.values()):
        return None
    return {folder: p[level] for folder, p in parts.items()}

"""Images from a folder or a zip of files, of any size, grey or colour."""

from __future__ import annotations

import io
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from statistics import median
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from pydantic import Field

from ebsc_core import ComponentSpec
from ebsc_core.data.images import ImageSet
from ebsc_core.data.source import sample_positions
from ebsc_core.errors import DataError
from ebsc_core.interfaces import DataContext
from ebsc_core.options import Options

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
GREY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "I;16B", "F"})
LARGEST_SIDE = 224
# What PIL raises on files that are no images, are cut short, or claim absurd sizes, and zipfile on members
# that are damaged, encrypted or compressed in a way it does not know (RuntimeError).
BAD_IMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    RuntimeError,
    Image.DecompressionBombError,
    zipfile.BadZipFile,
    zlib.error,
)


class FolderOptions(Options):
    """How a folder or zip of images is read."""

    size: int | None = Field(None, ge=4)
    """Side in pixels every image is brought to (shorter side scaled, centre cut out). By default images
    that share one size of at most 224 pixels stay as they are; others go to their median shorter side, at
    most 224."""
    labels: Literal["folders", "none"] = "folders"
    """Whether subfolders (the first level that branches) are classes. They are used for scoring only."""


@dataclass(frozen=True)
class Source:
    """Named files and how to read one."""

    path: Path
    names: list[str]
    """Paths inside, with ``/``, sorted."""
    read: Callable[[str], bytes]


@dataclass(frozen=True)
class Header:
    """What an image file says of itself, before decoding."""

    width: int
    height: int
    grey: bool


def resolve_folder(name: str) -> ComponentSpec | None:
    """Takes any path of an existing folder."""
    path = Path(name).expanduser()
    return _spec(name, path, _open_folder) if path.is_dir() else None


def resolve_zip(name: str) -> ComponentSpec | None:
    """Takes any path that ends in ``.zip`` and is no folder."""
    path = Path(name).expanduser()
    return _spec(name, path, _open_zip) if path.suffix.lower() == ".zip" and not path.is_dir() else None


def _spec(name: str, path: Path, opener: Callable) -> ComponentSpec:
    def read(options: FolderOptions, context: DataContext) -> ImageSet:
        with opener(path) as source:
            return read_images(source, options, context)

    return ComponentSpec(name, f"images in {path}", read, options=FolderOptions)


@contextmanager
def _open_folder(path: Path) -> Iterator[Source]:
    names = []
    for folder, subfolders, files in os.walk(path, followlinks=True):
        here = Path(folder)
        names += [(here / file).relative_to(path).as_posix() for file in files]
        # A link to a folder above would lead round for ever.
        subfolders[:] = [name for name in subfolders if not _leads_back(here, here / name)]
    yield Source(path, sorted(filter(_is_image, names)), lambda name: _read_file(path / name))


def _read_file(path: Path) -> bytes:
    """The bytes of a file; a pipe or device would be read for ever."""
    if path.exists() and not path.is_file():
        raise OSError("not a regular file")
    return path.read_bytes()


def _leads_back(folder: Path, link: Path) -> bool:
    return link.is_symlink() and folder.resolve().is_relative_to(link.resolve())


@contextmanager
def _open_zip(path: Path) -> Iterator[Source]:
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} is not a readable zip ({error})") from None
    with archive:
        yield Source(path, sorted(filter(_is_image, archive.namelist())), archive.read)


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden and not name.endswith("/")


def read_images(source: Source, options: FolderOptions, context: DataContext) -> ImageSet:
    """Decode all images (or the sample ``context`` asks for) to one size.

    Raises
    ------
    DataError
        If there are no images, one is unreadable and bad images are not to be skipped, or they would
        not fit in memory.
    """
    if not source.names:
        raise DataError(f"{source.path} holds no images (known types: {', '.join(sorted(SUFFIXES))})")
    chosen = sample_positions(len(source.names), context.limit, context.seed)
    names = [source.names[i] for i in chosen]
    with ThreadPoolExecutor() as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's, of odd but readable files; filters hold for all threads
        headers = list(pool.map(lambda name: _header(source, name), names))
        _check_bad(source, names, headers, context)
        good = {name: h for name, h in zip(names, headers, strict=True) if isinstance(h, Header)}
        height, width = _common_size(list(good.values()), options.size)
        grey = all(header.grey for header in good.values())
        _check_memory(source, len(good), (1 if grey else 3) * height * width)
        decoded = list(pool.map(lambda name: _decode(source, name, (width, height), grey), good))
    _check_bad(source, list(good), decoded, context)
    kept = [(n, d) for n, d in zip(good, decoded, strict=True) if isinstance(d, np.ndarray)]
    if not kept:
        raise DataError(f"{source.path} holds no readable image")
    ids = [name for name, _ in kept]
    images = torch.from_numpy(np.stack([image for _, image in kept]))
    name = source.path.name or str(source.path)
    level = _branching_level(source.names) if options.labels == "folders" else None
    if level is None:
        return ImageSet(name, images, ids)
    # Of all names, not of the sample's: a class keeps its number whatever the sample.
    class_names = sorted({PurePosixPath(image).parts[level] for image in source.names})
    number = {class_name: i for i, class_name in enumerate(class_names)}
    labels = np.array([number[PurePosixPath(image).parts[level]] for image in ids], dtype=np.int64)
    return ImageSet(name, images, ids, labels, tuple(class_names))


def _header(source: Source, name: str) -> Header | Exception:
    try:
        with Image.open(io.BytesIO(source.read(name))) as image:
            # EXIF orientations 5 to 8 swap the sides.
            swapped = image.getexif().get(0x0112) in (5, 6, 7, 8)
            size = image.size[::-1] if swapped else image.size
            return Header(*size, grey=image.mode in GREY_MODES)
    except BAD_IMAGE as error:
        return error


def _decode(source: Source, name: str, size: tuple[int, int], grey: bool) -> np.ndarray | Exception:
    """``(C, H, W)`` uint8, or what went wrong."""
    try:
        with Image.open(io.BytesIO(source.read(name))) as opened:
            opened.draft("L" if grey else "RGB", size)  # JPEG decodes at the smallest scale that suffices
            image = ImageOps.exif_transpose(opened)
            if image.mode in ("I", "I;16", "I;16B"):  # 16-bit grey, which PIL would clip at 255
                levels = np.asarray(image).astype(np.float64) / 257
                image = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
            image = image.convert("L" if grey else "RGB")
            if image.size != size:
                image = ImageOps.fit(image, size, Image.Resampling.BILINEAR)
            pixels = np.array(image)
    except BAD_IMAGE as error:
        return error
    return pixels[None] if grey else np.moveaxis(pixels, -1, 0)


def _check_bad(source: Source, names: list[str], results: list, context: DataContext) -> None:
    bad = [(n, r) for n, r in zip(names, results, strict=True) if isinstance(r, Exception)]
    if bad and not context.skip_bad_images:
        name, error = bad[0]
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise DataError(
            f"cannot read image {_shown(source.path / name)}{more} ({_reason(error)}); "
            "repair or remove it, or pass --skip-bad-images"
        )
    for name, error in bad:
        context.warn(f"left out unreadable image {_shown(source.path / name)} ({_reason(error)})")


def _shown(path: Path) -> str:
    """The path on one line, whatever its name is made of."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def _reason(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "not an image" if text.startswith("cannot identify image file") else text


def _common_size(headers: list[Header], size: int | None) -> tuple[int, int]:
    """Height and width every image is brought to."""
    if size is not None:
        return size, size
    shapes = {(h.height, h.width) for h in headers}
    if len(shapes) == 1 and max(shape := shapes.pop()) <= LARGEST_SIDE:
        return shape
    side = int(median(min(h.height, h.width) for h in headers)) if headers else LARGEST_SIDE
    side = max(4, min(side, LARGEST_SIDE))
    return side, side


def _available_memory() -> int | None:
    """Bytes the system can still give, caches included; None where it does not say."""
    try:
        found = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _check_memory(source: Source, n: int, bytes_each: int) -> None:
    available = _available_memory()
    # The list of decoded images and the stacked array exist at once for a moment.
    if available is not None and 2 * n * bytes_each > available:
        raise DataError(
            f"{source.path}: {n} images need {2 * n * bytes_each / 2**30:.1f} GiB, "
            f"{available / 2**30:.1f} GiB are free; use --limit or a smaller --set data.size"
        )


def _branching_level(names: list[str]) -> int | None:
    """The first folder level that branches; None if images lie beside it or none does."""
    parts = [PurePosixPath(name).parts for name in names]
    level = 0
    while all(len(p) > level + 1 for p in parts) and len({p[level] for p in parts}) == 1:
        level += 1
    return level if all(len(p) > level + 1 for p in parts) else None

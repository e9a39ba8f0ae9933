"""Pictures of images for a page: small, and together no larger than what they are given."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import product
from math import ceil, sqrt

import numpy as np
from PIL import Image

from ebsc_core.data.images.run_images import RunImages

# Bytes, before base64 makes 4 of every 3: with all else a page stays below 5 MB.
GALLERY_BYTES, SHEET_BYTES = 1_200_000, 900_000
# Longer sides, in pixels, of pictures in the gallery and on the map's sheet.
GALLERY_SIDE, SHEET_SIDE = 96, 48
# Losses that small pictures would show and that save nothing.
LOSSLESS_SIDE = 16
QUALITIES = (84, 70, 50, 30, 15)
# Pictures that a size and quality is first tried on.
TRIED = 60
# Reading the map's pictures ends then: those that are large files, or far away, would take all day.
READ_SECONDS = 8.0


@dataclass(frozen=True)
class Sheet:
    """Many pictures of one size in one, row by row."""

    uri: str
    width: int
    height: int
    """Of a picture, in pixels."""
    columns: int
    held: list[int]
    """What each place holds, by its index among what was asked for."""


def read_pictures(
    images: RunImages, first: Sequence[int], then: Sequence[int], seconds: float = READ_SECONDS
) -> dict[int, Image.Image]:
    """The images at these positions, brought to the gallery's size: all of ``first``, and as many of ``then``
    as can be read in so many seconds.

    Raises
    ------
    DataError
        If one cannot be read.
    """
    kept: dict[int, Image.Image] = {}
    for wanted, limit in ((sorted(set(first)), float("inf")), (_spread(set(then) - set(first)), seconds)):
        positions, began = np.array(wanted, dtype=np.int64), time.monotonic()
        for start in range(0, len(positions), 256):
            if time.monotonic() - began > limit:
                break
            part = positions[start : start + 256]
            for which, pixels in images.read(part):
                for index, image in zip(which.tolist(), pixels, strict=True):
                    kept[int(part[index])] = _shrunk(image, GALLERY_SIDE)
    return kept


def gallery(pictures: dict[int, Image.Image], budget: int = GALLERY_BYTES) -> dict[int, str]:
    """Each picture as a data URI, all together of at most ``budget`` bytes before base64."""
    some = _some(list(pictures.values()))
    for side, quality in product((GALLERY_SIDE, 64, 32, 16), QUALITIES):
        if sum(len(_small(picture, side, quality)) for picture in some) * len(pictures) > budget * len(some):
            continue
        encoded = {key: _small(picture, side, quality) for key, picture in pictures.items()}
        if sum(map(len, encoded.values())) <= budget:
            return {key: data_uri(data, "webp") for key, data in encoded.items()}
    return {}


def sheet(pictures: dict[int, Image.Image], order: Iterable[int], budget: int = SHEET_BYTES) -> Sheet | None:
    """Those of ``order`` that there are pictures of, in one; None of none."""
    held = [(index, pictures[key]) for index, key in enumerate(order) if key in pictures]
    if not held:
        return None
    for side in (SHEET_SIDE, 32, 16):
        small = [_fitted(picture, side) for _, picture in held]
        some, whole = _tiled(_some(small)), _tiled(small)
        width, height = small[0].size
        lossless = max(width, height) <= LOSSLESS_SIDE
        for quality in QUALITIES:
            pixels = whole.width * whole.height / (some.width * some.height)
            if len(_webp(some, quality, lossless)) * pixels > budget:
                continue
            data = _webp(whole, quality, lossless)
            if len(data) <= budget:
                indices = [index for index, _ in held]
                return Sheet(data_uri(data, "webp"), width, height, whole.width // width, indices)
    return None


def data_uri(data: bytes, kind: str) -> str:
    """Bytes of a picture as a part of the page."""
    return f"data:image/{kind};base64,{b64encode(data).decode()}"


def _spread(positions: set[int]) -> list[int]:
    """In an order such that the first few are from everywhere."""
    return np.random.default_rng(0).permutation(sorted(positions)).tolist()


def _shrunk(image: np.ndarray, side: int) -> Image.Image:
    """``(C, H, W)`` uint8, grey or RGB, no longer than ``side``."""
    planes = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    return _fitted(Image.fromarray(np.ascontiguousarray(planes)).convert("RGB"), side)


def _fitted(picture: Image.Image, side: int) -> Image.Image:
    if max(picture.size) <= side:
        return picture
    scale = side / max(picture.size)
    width, height = (max(1, round(scale * length)) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _some(pictures: list[Image.Image]) -> list[Image.Image]:
    """Enough of them to tell how large all will be, which takes far less time than to try all."""
    return pictures[:: max(1, len(pictures) // TRIED)]


def _tiled(pictures: list[Image.Image]) -> Image.Image:
    """Pictures of one size side by side, in about as many rows as columns."""
    columns, (width, height) = ceil(sqrt(len(pictures))), pictures[0].size
    whole = Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height))
    for place, picture in enumerate(pictures):
        whole.paste(picture, (place % columns * width, place // columns * height))
    return whole


def _small(picture: Image.Image, side: int, quality: int) -> bytes:
    small = _fitted(picture, side)
    return _webp(small, quality, lossless=max(small.size) <= LOSSLESS_SIDE)


def _webp(picture: Image.Image, quality: int, lossless: bool) -> bytes:
    file = BytesIO()
    picture.save(file, "WEBP", quality=quality, lossless=lossless, method=4)
    return file.getvalue()

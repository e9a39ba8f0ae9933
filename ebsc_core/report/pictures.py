"""Pictures of images for a page: small, and together no larger than what they are given."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from ebsc_core.data.again import RunImages

# Bytes, before base64 makes 4 of every 3: with all else a page stays below 5 MB.
GALLERY_BYTES, SHEET_BYTES = 1_500_000, 1_200_000
# Longer sides, in pixels, of pictures in the gallery and on the map's sheet.
GALLERY_SIDE, SHEET_SIDE = 96, 48
# Losses that small pictures would show and that save nothing.
LOSSLESS_SIDE = 16
QUALITIES = (84, 70, 50, 30, 15)
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
    encoded: list[bytes] = []
    for side in (GALLERY_SIDE, 64, 32, 16):
        for quality in QUALITIES:
            encoded = [_webp(_fitted(picture, side), quality) for picture in pictures.values()]
            if sum(map(len, encoded)) <= budget:
                return {key: data_uri(data, "webp") for key, data in zip(pictures, encoded, strict=True)}
    return {}


def sheet(pictures: dict[int, Image.Image], order: Iterable[int], budget: int = SHEET_BYTES) -> Sheet | None:
    """Those of ``order`` that there are pictures of, in one; None of none."""
    held = [(index, pictures[key]) for index, key in enumerate(order) if key in pictures]
    if not held:
        return None
    columns = int(np.ceil(np.sqrt(len(held))))
    rows = -(-len(held) // columns)
    for side in (SHEET_SIDE, 32, 16):
        small = [_fitted(picture, side) for _, picture in held]
        width, height = small[0].size
        whole = Image.new("RGB", (columns * width, rows * height))
        for place, picture in enumerate(small):
            whole.paste(picture, (place % columns * width, place // columns * height))
        for quality in QUALITIES:
            data = _webp(whole, quality, lossless=max(width, height) <= LOSSLESS_SIDE)
            if len(data) <= budget:
                return Sheet(data_uri(data, "webp"), width, height, columns, [index for index, _ in held])
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


def _webp(picture: Image.Image, quality: int, lossless: bool = False) -> bytes:
    file = BytesIO()
    lossless = lossless or max(picture.size) <= LOSSLESS_SIDE
    picture.save(file, "WEBP", quality=quality, lossless=lossless, method=4)
    return file.getvalue()

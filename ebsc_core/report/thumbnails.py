"""Encode small pictures of images for a page, within a limit of bytes."""

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

from ebsc_core.data.images.pil import as_picture
from ebsc_core.data.images.run_images import RunImages

# Limits in bytes before base64, which turns 3 bytes into 4. The whole page stays below 5 MB.
GALLERY_BYTES, SHEET_BYTES = 1_200_000, 900_000
# Longer side, in pixels, of pictures in the gallery and on the sheet of the map.
GALLERY_SIDE, SHEET_SIDE = 96, 48
# Up to this side, pictures are lossless: losses would be visible and save nothing.
LOSSLESS_SIDE = 16
QUALITIES = (84, 70, 50, 30, 15)
# Each size and quality is tried on this many pictures first.
TRIED = 60
# Reading the pictures of the map stops after this time, because large or remote files may take very long.
READ_SECONDS = 8.0


@dataclass(frozen=True)
class Sheet:
    """Hold many pictures of one size in one picture, row by row."""

    uri: str
    width: int
    height: int
    """The height of each small picture, in pixels; ``width`` is its width."""
    columns: int
    held: list[int]
    """For each place, the index of its picture in the requested order."""


def read_pictures(
    images: RunImages, first: Sequence[int], then: Sequence[int], seconds: float = READ_SECONDS
) -> dict[int, Image.Image]:
    """Read the images at these positions and reduce them to the gallery's size.

    The function reads all of ``first``, and as many of ``then`` as it can read in ``seconds``.

    Raises
    ------
    DataError
        If an image cannot be read.
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
    """Encode each picture as a data URI; all together take at most ``budget`` bytes before base64."""
    some = _some(list(pictures.values()))
    for side, quality in product((GALLERY_SIDE, 64, 32, 16), QUALITIES):
        if sum(len(_small(picture, side, quality)) for picture in some) * len(pictures) > budget * len(some):
            continue
        encoded = {key: _small(picture, side, quality) for key, picture in pictures.items()}
        if sum(map(len, encoded.values())) <= budget:
            return {key: data_uri(data, "webp") for key, data in encoded.items()}
    return {}


def sheet(pictures: dict[int, Image.Image], order: Iterable[int], budget: int = SHEET_BYTES) -> Sheet | None:
    """Join the available pictures in ``order`` to one sheet; return None if there is none."""
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
    """Encode the bytes of a picture as a data URI."""
    return f"data:image/{kind};base64,{b64encode(data).decode()}"


def _spread(positions: set[int]) -> list[int]:
    """Shuffle the positions, so that the first ones come from everywhere."""
    return np.random.default_rng(0).permutation(sorted(positions)).tolist()


def _shrunk(image: np.ndarray, side: int) -> Image.Image:
    """Convert ``(C, H, W)`` uint8, grey or RGB, to a picture no longer than ``side``."""
    return _fitted(as_picture(image).convert("RGB"), side)


def _fitted(picture: Image.Image, side: int) -> Image.Image:
    if max(picture.size) <= side:
        return picture
    scale = side / max(picture.size)
    width, height = (max(1, round(scale * length)) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _some(pictures: list[Image.Image]) -> list[Image.Image]:
    """Return a sample of the pictures, which estimates the size of all much faster."""
    return pictures[:: max(1, len(pictures) // TRIED)]


def _tiled(pictures: list[Image.Image]) -> Image.Image:
    """Tile pictures of one size in about as many rows as columns."""
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

"""Draw the pairs just above and just below the threshold of duplicates, to see whether it is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ebsc_core.curation.contact_sheet import PAPER, SIDE, squared
from ebsc_core.curation.duplicates import Duplicates
from ebsc_core.curation.output import whole_file
from ebsc_core.data.images.pil import as_picture
from ebsc_core.data.images.run_images import RunImages
from ebsc_core.utils.errors import DataError

# Pairs on each side of the threshold, in so many columns. Pixels of a margin and of a line of text.
EACH, COLUMNS = 24, 4
MARGIN, LINE = 12, 18
INK = (20, 20, 20)
# Formats in which a sheet of a few hundred pictures is written.
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def check_picture(path: Path) -> None:
    """Raise a DataError unless the suffix is that of a picture."""
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path} is no picture; give a name that ends in {', '.join(SUFFIXES)}")


def draw_pairs(found: Duplicates, images: RunImages, path: Path) -> None:
    """Write a picture of the pairs nearest to the threshold: those above it, then those below.

    Raises
    ------
    DataError
        If an image cannot be read, or the picture cannot be written.
    """
    border = int(np.count_nonzero(found.pairs.similarity >= found.threshold))
    halves = {
        f"duplicates: the least similar of {border:,} pairs": np.arange(max(0, border - EACH), border),
        "no duplicates: the most similar of the others": np.arange(
            border, min(border + EACH, len(found.pairs.similarity))
        ),
    }
    chosen = np.concatenate(list(halves.values()))
    wanted = np.unique(np.concatenate([found.pairs.first[chosen], found.pairs.second[chosen]]))
    pictures = {
        int(wanted[place]): squared(as_picture(one))
        for which, pixels in images.read(wanted)
        for place, one in zip(which.tolist(), pixels, strict=True)
    }
    parts = [_half(title, found, pairs, pictures) for title, pairs in halves.items()]
    sheet = Image.new("RGB", (parts[0].width, sum(part.height for part in parts)), PAPER)
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    with whole_file(path) as temporary_path:
        sheet.save(temporary_path, format=Image.registered_extensions()[path.suffix.lower()])


def _half(title: str, found: Duplicates, pairs: np.ndarray, pictures: dict[int, Image.Image]) -> Image.Image:
    cell = (2 * SIDE + 2 + MARGIN, SIDE + LINE + MARGIN)
    lines = -(-len(pairs) // COLUMNS)
    half = Image.new("RGB", (MARGIN + COLUMNS * cell[0], 2 * MARGIN + LINE + lines * cell[1]), PAPER)
    pen, font = ImageDraw.Draw(half), ImageFont.load_default(13)
    pen.text((MARGIN, MARGIN), f"{title} (threshold {found.threshold:.3f})", INK, font)
    for number, pair in enumerate(pairs.tolist()):
        left = MARGIN + number % COLUMNS * cell[0]
        top = 2 * MARGIN + LINE + number // COLUMNS * cell[1]
        half.paste(pictures[int(found.pairs.first[pair])], (left, top))
        half.paste(pictures[int(found.pairs.second[pair])], (left + SIDE + 2, top))
        pen.text((left, top + SIDE), f"{found.pairs.similarity[pair]:.3f}", INK, font)
    return half

"""Draw many images on one picture, each in a square of its own."""

from __future__ import annotations

from PIL import Image

from ebsc_core.curation.image_files import ImageFiles

# At most so many pictures, in rows of so many, each in a square of so many pixels.
PICTURES, COLUMNS, SIDE, GAP = 100, 10, 96, 2
PAPER = (255, 255, 255)


def contact_sheet(files: ImageFiles, positions: list[int]) -> Image.Image:
    """Draw these images on one picture, row by row."""
    cell, columns = SIDE + GAP, min(COLUMNS, len(positions))
    size = columns * cell + GAP, -(-len(positions) // columns) * cell + GAP
    sheet, place = Image.new("RGB", size, PAPER), {position: at for at, position in enumerate(positions)}
    for position, picture in files.pictures(positions):
        row, column = divmod(place[position], columns)
        sheet.paste(squared(picture), (column * cell + GAP, row * cell + GAP))
    return sheet


def squared(picture: Image.Image) -> Image.Image:
    """Draw a whole picture in the middle of a square of ``SIDE`` pixels; a small one shows its pixels."""
    square, small = Image.new("RGB", (SIDE, SIDE), PAPER), _fitted(picture.convert("RGB"))
    square.paste(small, ((SIDE - small.width) // 2, (SIDE - small.height) // 2))
    return square


def _fitted(picture: Image.Image) -> Image.Image:
    """Scale a picture to the side of a square; one much smaller grows by a whole factor."""
    longest = max(picture.size)
    if longest <= SIDE:
        factor = SIDE // longest
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    small = tuple(max(1, round(length * SIDE / longest)) for length in picture.size)
    return picture.resize((small[0], small[1]), Image.Resampling.LANCZOS)

"""Choose colours for any number of clusters, visible on a white page and on a dark one."""

from __future__ import annotations

from functools import cache
from itertools import cycle, islice

import numpy as np

LIGHT, DARK = "#ffffff", "#15171c"
# The least contrast of a mark with its page (WCAG 2.2, 1.4.11).
MIN_CONTRAST = 3.0
# The grid of colours to choose from, in OKLCH. A chroma above 0.2 is glaring, and most hues do not reach it.
LIGHTNESS, CHROMA, HUE = np.arange(0.50, 0.71, 0.02), np.arange(0.04, 0.201, 0.02), np.arange(0, 360, 6)
# Of the colours that are so nearly the farthest from all others, the farthest from the last one is taken.
NEARLY = 0.85
# The first colour is about the blue of the page, in OKLab: lightness, green to red, blue to yellow.
FIRST = (0.56, -0.02, -0.16)
# Ottosson, "A perceptual color space", 2020: from OKLab to cube roots of the cones' responses, and from these
# responses to linear sRGB.
TO_CONES = np.array(
    [
        [1, 0.3963377774, 0.2158037573],
        [1, -0.1055613458, -0.0638541728],
        [1, -0.0894841775, -1.2914855480],
    ]
)
TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def colors(n: int) -> list[str]:
    """Return ``n`` colours as ``#rrggbb``, each far from those before it and from grey.

    Grey shows images of no cluster. The first colours are the same for every ``n``. The smallest distance of
    two colours in OKLab, where 0.02 can just be seen, is 0.10 for 12, 0.09 for 20, 0.066 for 40 and 0.044 for
    100 colours. Beyond some 3,000, colours repeat.
    """
    points, names = _visible()
    chosen = [int(np.linalg.norm(points - FIRST, axis=1).argmin())]
    nearest = np.linalg.norm(points[:, 1:], axis=1)  # the chroma is the distance from grey
    for _ in range(1, min(n, len(names))):
        last = np.linalg.norm(points - points[chosen[-1]], axis=1)
        nearest = np.minimum(nearest, last)
        chosen.append(int(np.where(nearest >= NEARLY * nearest.max(), last, -1).argmax()))
    return [names[at] for at in islice(cycle(chosen), n)]


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours ``#rrggbb``, from 1 to 21 (WCAG 2.2)."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@cache
def _visible() -> tuple[np.ndarray, list[str]]:
    """Return the colours of the grid that can be seen on both pages: OKLab ``(M, 3)``, and their names."""
    lightness, chroma, hue = map(np.ravel, np.meshgrid(LIGHTNESS, CHROMA, np.radians(HUE), indexing="ij"))
    points = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=1)
    linear = (points @ TO_CONES.T) ** 3 @ TO_RGB.T
    in_srgb = ((linear >= 0) & (linear <= 1)).all(axis=1)
    names = [_name(color) for color in linear[in_srgb]]
    seen = [all(contrast(name, page) >= MIN_CONTRAST for page in (LIGHT, DARK)) for name in names]
    return points[in_srgb][seen], [name for name, is_seen in zip(names, seen, strict=True) if is_seen]


def _name(linear: np.ndarray) -> str:
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return "#" + np.rint(255 * encoded).astype(np.uint8).tobytes().hex()


def _luminance(color: str) -> float:
    channels = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue

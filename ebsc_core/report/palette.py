"""Colours for any number of clusters that are seen on a white page and on a dark one."""

from __future__ import annotations

from math import cos, gcd, pi, sin

# Lightness at which a colour keeps a contrast of 3 with both backgrounds (WCAG 2.2, 1.4.11).
LIGHTNESS = (0.60, 0.54, 0.65)
CHROMA = 0.145
# Where hues begin: blue, the page's own.
FIRST_HUE = 255.0
LIGHT, DARK = "#ffffff", "#15171c"


def colors(n: int) -> list[str]:
    """``n`` colours as ``#rrggbb``, neighbours far apart in hue; beyond 12, three shades share a hue."""
    hues = min(n, 12) if n <= 12 else -(-n // 3)
    step = _stride(hues)
    found = []
    for i in range(n):
        # From one round of the hues to the next the shade changes; within one it alternates.
        shade = LIGHTNESS[(i % hues % 2 + i // hues) % 3]
        found.append(_rgb(shade, CHROMA, FIRST_HUE + 360 * (i % hues * step % hues) / hues))
    return found


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours ``#rrggbb``, from 1 to 21 (WCAG 2.2)."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _stride(n: int) -> int:
    """A step through ``n`` hues that meets each once and has followers far apart: near the golden section."""
    wanted = n * 0.382
    return min((step for step in range(1, n + 1) if gcd(step, n) == 1), key=lambda step: abs(step - wanted))


def _rgb(lightness: float, chroma: float, hue: float) -> str:
    """OKLCH (Ottosson, "A perceptual color space", 2020) to sRGB; chroma gives way where sRGB has no such."""
    while True:
        a, b = chroma * cos(hue * pi / 180), chroma * sin(hue * pi / 180)
        long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
        middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
        short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
        linear = (
            4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
        )
        if all(-1e-4 <= value <= 1.0001 for value in linear):
            return "#" + "".join(f"{round(255 * _encoded(value)):02x}" for value in linear)
        chroma -= 0.005


def _encoded(value: float) -> float:
    value = min(max(value, 0.0), 1.0)
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055


def _luminance(color: str) -> float:
    channels = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue

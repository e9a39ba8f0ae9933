"""Format numbers, and text from other sources, for a page."""

from __future__ import annotations

import shlex
import unicodedata
from itertools import pairwise
from pathlib import Path

# Longer names are shortened in the middle.
LONGEST = 80
# Control characters, surrogates and ends of lines or paragraphs, by their category.
BREAKING = frozenset({"Cc", "Cs", "Zl", "Zp"})
# Characters that set the direction of the text after them, by their bidirectional class.
OVERRIDING = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


def shown(text: object) -> str:
    """Replace the characters that would break or disguise a line; everything else stays as it is.

    Bytes that are not UTF-8 (surrogate escapes) become U+FFFD. Line ends and other control characters
    become their pictures (from U+2400 on). Characters that reverse the following text become U+FFFD. Names
    of files keep their spaces of every width, their accents in whatever form, and their emoji.
    """
    whole = str(text).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(_picture(character) if _breaks(character) else character for character in whole)


def command(name: str, path: Path) -> str:
    """Return the line that calls a command of ebsc for a path, for a person to copy."""
    return shown(f"ebsc {name} {shlex.quote(str(path))}")


def short(text: object) -> str:
    """Format like :func:`shown`, and shorten a long text in the middle, which keeps folder and suffix."""
    whole = shown(text)
    if len(whole) <= LONGEST:
        return whole
    half = (LONGEST - 1) // 2
    return f"{whole[:half]}…{whole[-half:]}"


def _breaks(character: str) -> bool:
    return unicodedata.category(character) in BREAKING or unicodedata.bidirectional(character) in OVERRIDING


def _picture(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else "�"


def lines(text: str) -> str:
    """Format every line of a text like :func:`shown`."""
    return "\n".join(shown(line) for line in text.split("\n"))


def percent(share: float | None, digits: int = 0) -> str:
    """Format a share in [0, 1], e.g. ``95 %`` with a non-breaking space; None becomes a dash."""
    return "–" if share is None else f"{100 * share:.{digits}f}\u00a0%"


def number(value: float | None, digits: int = 3) -> str:
    """Format a figure, e.g. ``12,345`` or ``0.481``; None becomes a dash."""
    if value is None:
        return "–"
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    text = f"{value:,.{digits}f}" if abs(value) < 1000 else f"{value:,.0f}"
    return text.replace("-", "−")


def listed(items: list[str], most: int = 8) -> str:
    """Join items as ``a, b and c``; name at most ``most`` items and the number of the others."""
    if len(items) > most:
        return f"{', '.join(items[:most])} and {len(items) - most} more"
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)


def ranges(values: list[int]) -> str:
    """Join cluster numbers and write consecutive ones as a range: ``0–3, 7``."""
    runs: list[list[int]] = []
    for before, value in pairwise([-2, *sorted(values)]):
        if value == before + 1 and runs:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return listed([str(low) if low == high else f"{low}–{high}" for low, high in runs])

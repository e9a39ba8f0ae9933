"""Numbers and strangers' text as a page shows them."""

from __future__ import annotations

from itertools import pairwise

# Names longer than this lose their middle.
LONGEST = 80


def shown(text: object) -> str:
    """Text of any origin as characters that can be seen.

    Bytes that are not UTF-8 (surrogate escapes) become U+FFFD, line ends and other controls their pictures
    (U+2400 on), and characters that would change the direction of what follows U+FFFD.
    """
    whole = str(text).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(character if character.isprintable() else _picture(character) for character in whole)


def short(text: object) -> str:
    """The same, without the middle of a long one: both the folder and the suffix tell something."""
    whole = shown(text)
    if len(whole) <= LONGEST:
        return whole
    half = (LONGEST - 1) // 2
    return f"{whole[:half]}…{whole[-half:]}"


def _picture(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else "�"


def lines(text: str) -> str:
    """Text of several lines, each as :func:`shown`."""
    return "\n".join(shown(line) for line in text.split("\n"))


def percent(share: float | None, digits: int = 0) -> str:
    """A share in [0, 1], e.g. ``95 %`` that no line breaks; a dash for None."""
    return "–" if share is None else f"{100 * share:.{digits}f}\u00a0%"


def number(value: float | None, digits: int = 3) -> str:
    """A figure, e.g. ``12,345`` or ``0.481``; a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    text = f"{value:,.{digits}f}" if abs(value) < 1000 else f"{value:,.0f}"
    return text.replace("-", "−")


def listed(items: list[str], most: int = 8) -> str:
    """``a, b and c``; of more than ``most`` the first and how many more there are."""
    if len(items) > most:
        return f"{', '.join(items[:most])} and {len(items) - most} more"
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)


def ranges(values: list[int]) -> str:
    """Cluster numbers, runs of them joined: ``0–3, 7``."""
    runs: list[list[int]] = []
    for before, value in pairwise([-2, *sorted(values)]):
        if value == before + 1 and runs:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return listed([str(low) if low == high else f"{low}–{high}" for low, high in runs])

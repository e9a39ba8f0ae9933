"""Print text as it is, and tables as wide as the terminal.

If the output is no terminal and nobody says how wide it is, tables are wide.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from rich.console import Console
from rich.text import Text

WIDTH = 160


def plain_console(errors: bool = False) -> Console:
    """Make a console that takes nothing in a text for a style or an emoji: names may hold `[b]` and `:dog:`.

    Styles are given with :class:`rich.text.Text`.
    """
    return Console(stderr=errors, highlight=False, soft_wrap=True, markup=False, emoji=False)


def warning(message: str) -> Text:
    """Return a warning as it is printed."""
    return Text.assemble(("warning:", "yellow"), f" {message}")


def table_console() -> Console:
    """Make a console for tables, which takes texts as :func:`plain_console` does."""
    console = plain_console()
    console.soft_wrap = False
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = max(WIDTH, console.width)
    return console


def with_name(names: Mapping[int, str], number: int) -> str:
    """Show the number of a cluster with the name that a person has given it, if any."""
    return f"{number} {names[number]}" if number in names else str(number)

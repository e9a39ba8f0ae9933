"""Print tables as wide as the terminal, or wide if the output is no terminal and nobody says how wide."""

from __future__ import annotations

import os
from collections.abc import Mapping

from rich.console import Console

WIDTH = 160


def table_console() -> Console:
    """Make a console for tables."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = max(WIDTH, console.width)
    return console


def with_name(names: Mapping[int, str], number: int) -> str:
    """Show the number of a cluster with the name that a person has given it, if any."""
    return f"{number} {names[number]}" if number in names else str(number)

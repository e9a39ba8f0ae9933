"""Print tables as wide as the terminal, or as wide as needed if the output is no terminal."""

from __future__ import annotations

from rich.console import Console

WIDTH = 160


def table_console() -> Console:
    """Make a console for tables."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(WIDTH, console.width)
    return console

"""Tables as wide as the terminal, or as they need where no terminal says how wide it is."""

from __future__ import annotations

from rich.console import Console

WIDTH = 160


def table_console() -> Console:
    """A console for tables."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(WIDTH, console.width)
    return console

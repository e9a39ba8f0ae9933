"""Implement ``ebsc cache``: show what is kept between runs, and remove what is old."""

from __future__ import annotations

import re
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from ebsc_cli.flags import OPTION

# No m: some would mean minutes by it.
DAYS = {"h": 1 / 24, "d": 1, "w": 7, "y": 365}


def cache(
    action: Annotated[
        str | None,
        typer.Argument(metavar="[clear]", help="Remove features, in place of showing what is there."),
    ] = None,
    older_than: Annotated[
        str | None,
        OPTION(
            metavar="AGE",
            help="Remove only what was not used for so long, e.g. 12h, 30d or 2w; then checkpoints of "
            "interrupted training and extraction, too. \\[default: any features, no checkpoints]",
        ),
    ] = None,
    folder: Annotated[
        str | None,
        OPTION("--cache", metavar="DIR", help="The cache of features. \\[default: in the user's cache]"),
    ] = None,
) -> None:
    """Show what ebsc keeps between runs, how large it is and where; or remove features.

    `EBSC_CACHE_LIMIT=20GB` in the environment limits the features: a run then removes those that were used
    least recently. Nothing that a command uses is removed, and nothing that ebsc has not written.
    """
    from ebsc_core.utils.errors import ConfigError
    from ebsc_core.utils.paths import features_folder

    if action not in (None, "clear"):
        raise ConfigError(f"ebsc cache has no action {action!r}; the only one is clear")
    if older_than is not None and not action:
        raise ConfigError("--older-than is for `ebsc cache clear`")
    if folder == "":  # an unset shell variable; the user's own cache is not meant
        raise ConfigError("--cache is empty; give the folder of a cache, or leave it out")
    features = features_folder(folder)
    if features is None:
        raise ConfigError("--cache none keeps nothing; give the folder of a cache")
    if action:
        _clear(features, None if older_than is None else _days(older_than))
    else:
        _show(features)


def _days(age: str) -> float:
    from ebsc_core.utils.errors import ConfigError

    match = re.fullmatch(rf"(\d+(?:\.\d+)?)([{''.join(DAYS)}])", age.strip().lower())
    if not match:
        raise ConfigError(
            f"--older-than {age!r} is no age; write hours, days, weeks or years, e.g. 12h, 30d, 2w or 1y"
        )
    return float(match[1]) * DAYS[match[2]]


def _show(folder: Path) -> None:
    from rich.table import Table

    from ebsc_cli.tables import plain_console
    from ebsc_core.utils.cached_entries import LIMIT, cache_limit, entries_of, in_bytes, size_of
    from ebsc_core.utils.paths import data_folder

    entries = entries_of(folder)
    table = Table("kept", "number", "size", "last used")
    for column in table.columns[1:3]:
        column.justify = "right"
    for what, checkpoints in (("trained features", False), ("checkpoints", True)):
        those = [entry for entry in entries if entry.is_checkpoint == checkpoints]
        used = f"{datetime.fromtimestamp(those[-1].used):%Y-%m-%d %H:%M}" if those else ""
        table.add_row(what, str(len(those)), in_bytes(sum(entry.size for entry in those)), used)
    downloads = data_folder()
    if downloads.is_dir():
        table.add_row("named data sets", "", in_bytes(size_of(downloads)), "")
    console = plain_console()
    console.print(table)
    console.print(f"features: {folder}")
    if downloads.is_dir():
        console.print(f"data sets: {downloads} (ebsc cache clear leaves them)")
    limit = cache_limit()
    said = (
        f"none; {LIMIT}=20GB in the environment sets one" if limit is None else f"{in_bytes(limit)} ({LIMIT})"
    )
    console.print(f"limit: {said}")


def _clear(folder: Path, days: float | None) -> None:
    from ebsc_core.utils.cached_entries import entries_of, in_bytes, remove_entries

    latest = time.time() - 86400 * (days or 0)
    entries = entries_of(folder)
    old = [
        entry for entry in entries if entry.used <= latest and (days is not None or not entry.is_checkpoint)
    ]
    gone = list(remove_entries(old))
    print(f"removed {in_bytes(sum(entry.size for entry in gone))}: {_counted(gone)} of {folder}")
    if len(gone) < len(old):
        print(f"{len(old) - len(gone)} stay, because a command uses them or they cannot be removed")
    checkpoints = sum(entry.is_checkpoint for entry in entries)
    if days is None and checkpoints:
        print(f"{checkpoints} checkpoints stay: commands resume from them; --older-than 30d removes old ones")


def _counted(gone: list) -> str:
    checkpoints = sum(entry.is_checkpoint for entry in gone)
    features = f"the features of {len(gone) - checkpoints} trainings"
    return features + (f" and {checkpoints} checkpoints" if checkpoints else "")

"""Write what was found as a table with a line per image."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ebsc_core.utils.errors import DataError
from ebsc_core.utils.files import written_whole


def write_table(path: Path, head: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file as a whole; file names that are not UTF-8 keep their bytes.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    try:
        with (
            written_whole(path) as temporary_path,
            temporary_path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(head)
            writer.writerows(lines)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error

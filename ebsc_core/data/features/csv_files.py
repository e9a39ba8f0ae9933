"""Read features from ``.csv`` files, as spreadsheets, pandas and NumPy write them."""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from ebsc_core.config.schema import FeaturesChoice
from ebsc_core.data.features.naming import choose_columns
from ebsc_core.data.features.rows import BLOCK_ROWS
from ebsc_core.data.features.source import FeatureSource, check_rows, feature_source
from ebsc_core.utils.errors import DataError

# Characters of a line: 100,000 columns of 20 digits each.
MAX_LINE = 2 << 20
# What looks like a number, be it written right or not.
NUMBERLIKE = re.compile(r"\s*[-+]?[\d.,_]+([eE][-+]?\d+)?\s*")
DECIMAL_COMMA = re.compile(r"\d[,;\t]\d|\d;|;\d")


@contextmanager
def opened_table(path: Path) -> Iterator[tuple[IO[str], str]]:
    """Open a ``.csv`` file in its encoding, and yield it with its delimiter.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    with path.open("rb") as start:
        wide = start.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # "Unicode text" of a spreadsheet
    encoding = "utf-16" if wide else "utf-8-sig"
    with path.open(newline="", encoding=encoding, errors="surrogateescape") as file:
        delimiter = max(",;\t", key=file.readline(MAX_LINE).count)
        file.seek(0)
        yield file, delimiter


def read_csv(path: Path, choice: FeaturesChoice) -> FeatureSource:
    """Read a table of numbers, and of texts for labels and names, into memory."""
    with opened_table(path) as (file, delimiter):
        lines = csv.reader(_lines(path, file), delimiter=delimiter)
        first = next(filter(None, lines), [])
        head = first if _is_head(first) else [str(i) for i in range(len(first))]
        twice = next((name for name, count in Counter(head).items() if count > 1), None)
        if twice is not None:
            raise DataError(f"{path} has two columns called {twice!r}; rename one")
        labels, ids, others, described = choose_columns(path, choice, head)
        table = _Table(path, head, others, labels, ids)
        if first is not head:
            table.add(lines.line_num, first)
        for line in filter(None, lines):
            table.add(lines.line_num, line)
    rows = table.rows()
    shape = check_rows(path, rows.shape, rows.dtype)
    beside = (None if name is None else table.texts[name] for name in (labels, ids))
    return feature_source(path, shape, rows.__getitem__, *beside, columns=described)


class _Table:
    """Collect the numbers and the texts of the lines of a table."""

    def __init__(self, path: Path, head: list[str], numbers: list[str], *texts: str | None) -> None:
        self.path, self.head = path, head
        places = {name: place for place, name in enumerate(head)}
        self.places = [places[name] for name in numbers]
        self.texts: dict[str, list[str]] = {name: [] for name in texts if name is not None}
        self.text_places = [(places[name], found) for name, found in self.texts.items()]
        self.blocks: list[np.ndarray] = []
        self.waiting: list[np.ndarray] = []

    def add(self, number: int, line: list[str]) -> None:
        """Add a line; ``number`` is its place in the file, for messages."""
        if len(line) != len(self.head):
            raise DataError(f"{self.path}: line {number} has {len(line)} entries, not {len(self.head)}")
        entries = [line[place] for place in self.places]
        together = "".join(entries)
        row = None
        # Python also reads `1_0` and digits of other scripts as numbers. No program writes those.
        if together.isascii() and "_" not in together:
            try:
                with np.errstate(over="ignore"):
                    row = np.array(entries, dtype=np.float32)
            except ValueError:
                row = None
        if row is None or not np.isfinite(row).all():
            raise DataError(f"{self.path}: line {number}, {self._first_wrong(entries)}")
        self.waiting.append(row)
        if len(self.waiting) == BLOCK_ROWS:
            self._pack()
        for place, found in self.text_places:
            found.append(line[place])

    def rows(self) -> np.ndarray:
        """Return the numbers ``(N, D)`` float32."""
        self._pack()
        return np.concatenate(self.blocks)

    def _pack(self) -> None:
        """Put the rows into one array, which needs less memory than many small ones."""
        self.blocks.append(np.array(self.waiting, dtype=np.float32).reshape(-1, len(self.places)))
        self.waiting = []

    def _first_wrong(self, entries: list[str]) -> str:
        """Say which entry is no number, and what to do."""
        name, entry, advice = next(
            (self.head[place], entry, advice)
            for place, entry in zip(self.places, entries, strict=True)
            if (advice := _advice(entry))
        )
        if not entry.strip():
            return f"column {name!r} is empty; {advice}"
        return f"column {name!r} holds {entry[:40]!r}, {advice}"


def _advice(entry: str) -> str | None:
    """Return what to do about an entry, or None if it is a number that float32 holds."""
    if not entry.strip():
        return "fill it in, or drop the row or the column"
    value = _number(entry)
    if value is None or not entry.isascii() or "_" in entry:
        if DECIMAL_COMMA.search(entry):
            return "which is no number; write decimal points, and commas between the columns"
        if NUMBERLIKE.fullmatch(entry):
            return "which is no number; correct it"
        return (
            "which is no number; name the column with `features.ids` or `features.labels`, or drop it, or "
            "correct the entry"
        )
    if not np.isfinite(value):
        return "which is not finite; correct it, or drop such rows"
    with np.errstate(over="ignore"):
        finite = np.isfinite(np.float32(value))
    return None if finite else "which is too large for float32; scale the numbers"


def _lines(path: Path, file: IO[str]) -> Iterator[str]:
    """Yield the lines of a file, none of them too long for the memory."""
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), ""), 1):
        if len(line) == MAX_LINE:
            raise DataError(
                f"{path}: line {number} is longer than {MAX_LINE} characters; save such wide rows as .npy"
            )
        if "\0" in line:
            raise DataError(
                f"{path}: line {number} holds null characters, so this is no text in UTF-8; save it as UTF-8"
            )
        yield line


def _is_head(line: list[str]) -> bool:
    """Return whether the first line names the columns.

    In such a line, some entries are no numbers, however written, and the numbers are whole; or the entries
    count from 0, as pandas and numpy users get them from a table without names. An empty entry is a missing
    number, except for the first, where pandas has the index.
    """
    if len(line) > 1 and line == [str(i) for i in range(len(line))]:
        return True
    others = [entry for place, entry in enumerate(line) if not _is_name(entry, place)]
    return len(others) < len(line) and all(entry.strip().isdecimal() for entry in others if entry.strip())


def _is_name(entry: str, place: int) -> bool:
    if not entry.strip():
        return place == 0
    return _number(entry) is None and not NUMBERLIKE.fullmatch(entry)


def _number(entry: str) -> Any:
    try:
        return float(entry)
    except ValueError:
        return None

"""Compare what two commands have left, apart from times, memory and dates."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What no two runs share, wherever it stands in a table.
VOLATILE = {
    *("created", "started", "seconds", "wall_seconds", "feature_seconds", "waiting_for_images"),
    "peak_memory_mib",
}
# The manifest has digests of files that hold times.
UNCOMPARED = {"manifest", "lock", ".lock"}
# A checkpoint may stay, so that no other training of the same key is lost with it.
CHECKPOINT = ".training.safetensors"


def contents(folder: Path) -> dict[str, str]:
    """Return a digest of each file below a folder, by its path; hidden files are left out."""
    return {
        name: hashlib.blake2b(_normal(path), digest_size=8).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not is_hidden(name := str(path.relative_to(folder)))
        if path.name not in UNCOMPARED and not name.endswith(CHECKPOINT)
    }


def remains(folder: Path) -> list[str]:
    """Return hidden files, and checkpoints, below a folder: what a command removes that is not killed."""
    found = sorted([*folder.rglob(".*"), *folder.rglob(f"*{CHECKPOINT}")])
    return [str(path.relative_to(folder)) for path in found if path.name not in UNCOMPARED]


def is_hidden(name: str) -> bool:
    """Return whether a file, or a folder that holds it, is hidden."""
    return any(part.startswith(".") for part in Path(name).parts)


def differing(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """Return the paths whose contents differ."""
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


def _normal(path: Path) -> bytes:
    """Return the content of a file without what no two runs share; damaged files are taken as they are."""
    content = path.read_bytes()
    try:
        return NORMAL.get(path.name, NORMAL.get(path.suffix, bytes))(content)
    except ValueError:
        return content


def _without_volatile(record: Any) -> Any:
    if isinstance(record, dict):
        return {name: _without_volatile(value) for name, value in record.items() if name not in VOLATILE}
    return [_without_volatile(value) for value in record] if isinstance(record, list) else record


def _table(record: Any) -> bytes:
    return json.dumps(_without_volatile(record), sort_keys=True, default=str).encode()


def _report(content: bytes) -> bytes:
    """Return a report without its date and its times."""
    volatile = re.compile(
        rb"\s*(created = |<tbody><tr>.*\d s</td>|<caption>Time|<div><dt>Time<|<p class=.over)"
    )
    return b"\n".join(line for line in content.split(b"\n") if not volatile.match(line))


NORMAL: dict[str, Callable[[bytes], bytes]] = {
    ".json": lambda content: _table(json.loads(content)),
    ".toml": lambda content: _table(tomllib.loads(content.decode())),
    "report.html": _report,
    # The first five columns: the row and its scores.
    "table.md": lambda content: b"\n".join(b"|".join(line.split(b"|")[:5]) for line in content.split(b"\n")),
    "table.html": lambda content: re.sub(rb"<td.*</td>", b"", content),
}

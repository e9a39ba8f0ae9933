"""Note in an unfinished run which checkpoint it can go on from, and what the work in that depends on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ebsc_core.utils.cached_entries import CHECKPOINT_SUFFIX
from ebsc_core.utils.hashing import digest

# The name of the note in the hidden folder of a run, and the most bytes that are read of it.
NOTE, MAX_BYTES = "kept.json", 1 << 16


@dataclass(frozen=True)
class CheckpointNote:
    """Hold the file name of a checkpoint, which lies in a cache, and what it depends on."""

    file: str
    made_from: dict[str, str]
    """A digest of each thing that the training or extraction depends on, by its name."""

    @classmethod
    def of(cls, file: Path, made_from: Mapping[str, Any]) -> CheckpointNote:
        return cls(file.name, {name: digest(value) for name, value in made_from.items()})

    @classmethod
    def read(cls, folder: Path) -> CheckpointNote | None:
        """Read the note in a folder; None if there is none, or a damaged one."""
        try:
            with (folder / NOTE).open("rb") as content:
                tree = json.loads(content.read(MAX_BYTES))
            # The note may come from somebody else: a path would lead to another folder, and is an error here.
            return cls(folder.with_name(tree["file"]).name, dict(tree["made_from"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def write(self, folder: Path) -> None:
        """Write the note to a folder, in place of the one that is there."""
        (folder / NOTE).write_text(json.dumps(asdict(self)), encoding="utf-8")

    def checkpoint(self, cache: Path) -> Path | None:
        """Return the checkpoint if it is in this cache."""
        path = cache / self.file
        return path if self.file.endswith(CHECKPOINT_SUFFIX) and os.path.exists(path) else None

    def changes(self, now: CheckpointNote) -> list[str]:
        """Return the names of what the work depends on now that has changed since this note."""
        return [name for name, value in now.made_from.items() if self.made_from.get(name) != value]

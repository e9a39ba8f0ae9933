"""Verify all files of a run directory, or of an entry of the cache of features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from ebsc_core.runs.store.directory import DECISIONS, files_of, own_files
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.runs.store.unfinished import UNFINISHED, how_unfinished, is_unfinished, read_unfinished
from ebsc_core.utils.errors import EbscError
from ebsc_core.utils.manifest import MANIFEST

Checked = Iterator[tuple[Literal["ok", "note", "failed"], str]]


def verify(path: Path) -> Checked:
    """Yield ``ok``, ``note`` or ``failed``, and a sentence, for each file.

    A file is right if it is the one that was written. Those of a run are also read.
    """
    if is_unfinished(path):
        yield from _tried({UNFINISHED: partial(read_unfinished, path)})
        yield "note", how_unfinished(path)
    else:
        yield from _verify_finished(path)


def _verify_finished(path: Path) -> Checked:
    files = files_of(path)
    try:
        names = sorted(files.digests or {})
        run = None if names and not files.holds("run.toml") else SavedRun(path)
    except EbscError as error:
        yield "failed", str(error)
        return
    if files.unchecked:
        yield "note", files.unchecked
    else:
        there = [str(file.relative_to(path)) for file in own_files(path) if file.exists()]
        names += [name for name in there if name not in (*names, MANIFEST, DECISIONS)]
        checks = {name: partial(files.file, name) for name in names}
        results = list(_tried(checks))
        yield from results
        if any(status == "failed" for status, _ in results):
            return  # what is wrong with its content is said already
    if run:
        yield from _tried({"content": partial(_read_all, run)})


def _read_all(run: SavedRun) -> None:
    """Read everything that a command may read, except weights, which only the network itself can check."""
    _ = run.config, run.provenance, run.metrics, run.assignments, run.affinity, run.curated
    for _ in run.rows.blocks():
        pass


def _tried(checks: Mapping[str, Callable[[], object]]) -> Checked:
    for name, check in checks.items():
        try:
            check()
            yield "ok", name
        except EbscError as error:
            yield "failed", str(error)

"""Record what a person has decided about the clusters of a finished run, and apply it.

``decisions.json`` lies in the run directory. It changes nothing that the run has written: the decisions are
applied, in their order, whenever clusters are read. The file is not in the manifest, because it changes
alone. It carries a checksum of its own, and the checksum of the ``assignments.csv`` that it is about.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ebsc_core.runs.store.cluster_names import NONE, is_usable
from ebsc_core.utils.errors import RunDirectoryError, shortened
from ebsc_core.utils.files import written_whole
from ebsc_core.utils.manifest import digest_of

# Numbers of clusters stay small, because arrays are as long as the largest one.
MAX_NUMBERS = 1 << 20
Number = Annotated[int, Field(ge=0, lt=MAX_NUMBERS)]
Row = Annotated[int, Field(ge=0, lt=1 << 40)]


def _usable(name: str) -> str:
    # The file may come from somebody else, and names become folders.
    if name and not is_usable(name):
        raise ValueError(f"{shortened(name)!r} is no name of a cluster")
    return name


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Name(_Strict):
    """Give one cluster a name; an empty name takes its name away."""

    number: Number
    name: Annotated[str, AfterValidator(_usable)]


class Naming(_Strict):
    """Give clusters names."""

    kind: Literal["name"] = "name"
    names: list[Name] = Field(min_length=1)

    def __str__(self) -> str:
        return f"name {', '.join(f'{one.number} = {one.name!r}' for one in self.names)}"


class Merge(_Strict):
    """Join clusters; the smallest number stays."""

    kind: Literal["merge"] = "merge"
    numbers: list[Number] = Field(min_length=2)

    def __str__(self) -> str:
        return f"merge {' '.join(map(str, self.numbers))}"


class Part(_Strict):
    """Move rows into a new cluster."""

    number: Number
    rows: list[Row] = Field(min_length=1)
    """Positions in ``assignments.csv``, counted from 0."""


class Split(_Strict):
    """Move parts of a cluster into clusters of their own; what is in no part keeps the number."""

    kind: Literal["split"] = "split"
    number: Number
    parts: list[Part] = Field(min_length=1)

    def __str__(self) -> str:
        return (
            f"split {self.number} into {' '.join(map(str, [self.number, *(p.number for p in self.parts)]))}"
        )


class Move(_Strict):
    """Move rows to a cluster that is there, or to none."""

    kind: Literal["move"] = "move"
    number: Number | None
    rows: list[Row] = Field(min_length=1)

    def __str__(self) -> str:
        count = len(self.rows)
        return (
            f"move {count} image{'s' if count > 1 else ''} to {NONE if self.number is None else self.number}"
        )


Decision = Annotated[Naming | Merge | Split | Move, Field(discriminator="kind")]
_DECISIONS = TypeAdapter(list[Decision])


class _File(_Strict):
    format: Literal["ebsc-decisions-1"] = "ebsc-decisions-1"
    assignments: str
    checksum: str
    decisions: list[Decision]


@dataclass(frozen=True)
class Curated:
    """Hold the clusters of a run after all decisions."""

    clusters: np.ndarray
    """The cluster of each row of ``assignments.csv``, ``(N,)`` int64; -1 for none."""
    names: dict[int, str]
    """The names of the clusters that have one."""
    changed: frozenset[int]
    """The clusters that a merge or a split has made, or moves have emptied."""
    highest: int
    """The highest number that a cluster has had; -1 if there was none."""
    by_hand: np.ndarray
    """Whether a person has moved the row to where it is, ``(N,)`` bool."""

    @property
    def numbers(self) -> list[int]:
        """The numbers of the clusters, ascending."""
        return np.unique(self.clusters[self.clusters >= 0]).tolist()

    def sizes(self) -> dict[int, int]:
        """Return the number of rows in each cluster."""
        numbers, counts = np.unique(self.clusters[self.clusters >= 0], return_counts=True)
        return dict(zip(numbers.tolist(), counts.tolist(), strict=True))

    def called(self, number: int) -> str:
        """Return the name of a cluster or, if it has none, its number."""
        return self.names.get(number, str(number))

    def sure(self, confidence: np.ndarray) -> np.ndarray:
        """Return the confidence ``(N,)``; of rows that were moved by hand, 1 in a cluster and 0 in none."""
        return np.where(self.by_hand, self.clusters >= 0, confidence)


def apply(clusters: np.ndarray, decisions: Sequence[Decision]) -> Curated:
    """Apply decisions to the clusters ``(N,)`` of a run, which stay as they are.

    Raises
    ------
    ValueError
        If a decision does not fit the clusters at its turn.
    """
    by_hand = np.zeros(len(clusters), dtype=bool)
    curated = Curated(clusters.copy(), {}, frozenset(), int(clusters.max(initial=-1)), by_hand)
    for decision in decisions:
        match decision:
            case Naming():
                curated = _named(curated, decision)
            case Merge():
                curated = _merged(curated, decision)
            case Split():
                curated = _split(curated, decision)
            case Move():
                curated = _moved(curated, decision)
    return curated


def _named(curated: Curated, naming: Naming) -> Curated:
    names = dict(curated.names)
    for one in naming.names:
        _require(curated, one.number)
        names[one.number] = one.name
    names = {number: name for number, name in sorted(names.items()) if name}
    if len({name.casefold() for name in names.values()}) < len(names):
        raise ValueError("two clusters have the same name")
    return replace(curated, names=names)


def _merged(curated: Curated, merge: Merge) -> Curated:
    for number in merge.numbers:
        _require(curated, number)
    if len(set(merge.numbers)) < len(merge.numbers):
        raise ValueError("a merge names a cluster twice")
    numbers = sorted(merge.numbers)
    clusters = np.where(np.isin(curated.clusters, numbers), numbers[0], curated.clusters)
    kept = [curated.names[number] for number in numbers if number in curated.names][:1]
    names = {number: name for number, name in curated.names.items() if number not in numbers}
    names |= dict.fromkeys(numbers[:1], *kept) if kept else {}
    changed = curated.changed - set(numbers) | {numbers[0]}
    return replace(curated, clusters=clusters, names=dict(sorted(names.items())), changed=changed)


def _split(curated: Curated, split: Split) -> Curated:
    _require(curated, split.number)
    clusters, highest = curated.clusters.copy(), curated.highest
    for part in split.parts:
        rows = np.array(part.rows)
        if rows.max() >= len(clusters) or (clusters[rows] != split.number).any():
            raise ValueError(f"a split moves rows that are not in cluster {split.number}")
        if part.number <= highest:
            raise ValueError(f"a split gives the number {part.number} a second time")
        clusters[rows], highest = part.number, part.number
    changed = curated.changed | {split.number, *(part.number for part in split.parts)}
    # The split has put the images of its cluster where they are now.
    by_hand = curated.by_hand & (curated.clusters != split.number)
    after = replace(curated, clusters=clusters, changed=changed, highest=highest, by_hand=by_hand)
    _require(after, split.number)
    return after


def _moved(curated: Curated, move: Move) -> Curated:
    rows = np.array(move.rows)
    if rows.max() >= len(curated.clusters):
        raise ValueError("a move names rows that are not there")
    if move.number is not None:
        _require(curated, move.number)
    clusters, by_hand = curated.clusters.copy(), curated.by_hand.copy()
    clusters[rows], by_hand[rows] = -1 if move.number is None else move.number, True
    if (clusters < 0).all():
        raise ValueError("a move leaves no image in a cluster")
    after = replace(curated, clusters=clusters, by_hand=by_hand)
    emptied = set(curated.numbers) - set(after.numbers)
    names = {number: name for number, name in curated.names.items() if number not in emptied}
    return replace(after, names=names, changed=curated.changed | emptied)


def _require(curated: Curated, number: int) -> None:
    if not (curated.clusters == number).any():
        raise ValueError(f"there is no cluster {number}")


def read_decisions(path: Path, assignments: Path) -> list[Decision]:
    """Read the decisions about these assignments.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If its content is not what was written, or is about other assignments.
    """
    try:
        found = _File.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise ValueError(shortened(f"{where}: {problem['msg']}" if where else problem["msg"])) from None
    if found.checksum != _checksum(found.decisions):
        raise ValueError("its checksum differs")
    if found.assignments != digest_of(assignments):
        raise ValueError(f"it is about another {assignments.name}")
    return found.decisions


def write_decisions(path: Path, assignments: Path, decisions: Sequence[Decision]) -> None:
    """Write the decisions about these assignments, and replace earlier ones.

    Raises
    ------
    RunDirectoryError
        If the file is a link, or cannot be written.
    """
    if path.is_symlink():
        raise RunDirectoryError(f"{path} is a link, which may lead anywhere; remove it")
    content = _File(
        assignments=digest_of(assignments),
        checksum=_checksum(decisions),
        decisions=list(decisions),
    )
    try:
        with written_whole(path) as temporary_path:
            temporary_path.write_text(content.model_dump_json() + "\n", encoding="utf-8")
    except OSError as error:
        raise RunDirectoryError(f"cannot write {path}: {error.strerror or error}") from None


def _checksum(decisions: Sequence[Decision]) -> str:
    return hashlib.sha256(_DECISIONS.dump_json(list(decisions))).hexdigest()

"""Define what a finished run has recorded, and check it when it is read back.

``metrics.json`` and the provenance in ``run.toml`` may be damaged or a stranger's. Whoever uses them may rely
on the types and ranges below. Further entries, of other versions, are kept and not looked at.
"""

from __future__ import annotations

import json
import reprlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

# No run has more of anything; arithmetic with the largest of these values does not overflow.
Count = Annotated[int, Field(ge=0, le=10**12)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Figure = Annotated[float, Field(ge=-1e40, le=1e40)]
Side = Annotated[int, Field(ge=1, le=1 << 14)]


def moment(text: str) -> datetime:
    """Return the time that a record names, in UTC."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text!r} is no time") from None


def _timestamp(text: str) -> str:
    moment(text)
    return text


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Scores(_Record):
    """Hold the scores against the classes."""

    acc: Figure | None = None
    nmi: Figure | None = None
    ari: Figure | None = None
    knn_accuracy: Figure | None = None


class LabelFree(_Record):
    """Hold the figures that need no classes."""

    silhouette: Figure | None
    eigengap: Figure | None
    within_cluster_mass: Figure | None
    connected_components: Count | None = None
    dictionary_agreement: Figure | None = None
    cluster_sizes: list[Count] = []


class Candidate(_Record):
    """Hold the figures of one number of clusters."""

    k: Count
    score: Figure | None = None
    stability: Figure | None = None
    eigengap: Figure | None = None


class Candidates(_Record):
    """Hold the numbers of clusters that were tried, if the number was to be found."""

    chosen: Count | None = None
    candidates: list[Candidate] = []


class EpochFigures(_Record):
    """Hold the figures of one epoch of training."""

    stage: str | None = None
    loss: Figure | None = None
    effective_rank: Figure | None = None
    joint_error: Figure | None = None


class Cost(_Record):
    """Hold what the features took, in this run or in the one that made them."""

    seconds: dict[str, Seconds] = {}


class Like(_Record):
    """Hold what became of the clusters of an earlier run, if numbers were kept."""

    run: str | None = None
    next: Count = 0


class Metrics(_Record):
    """Hold the content of ``metrics.json``."""

    images: Count
    scores: Scores | None
    label_free: LabelFree
    seconds: dict[str, Seconds]
    dictionary_size: Count | None = None
    copies: Count = 0
    n_clusters: Candidates | None = None
    eigenvalues: list[Figure] | None = None
    processes: Annotated[Count, Field(ge=1)] = 1
    peak_memory_mib: Figure | None = None
    warnings: list[str] | None = None
    features_cost: Cost | None = None
    training: list[EpochFigures] | None = None
    like: Like | None = None


class ImageRecord(_Record):
    """Hold what the images of a run were like."""

    channels: Side
    height: Side
    width: Side
    mean: list[Figure]
    std: list[Figure]


class Provenance(_Record):
    """Hold the table of ``run.toml`` that says how the run was made."""

    created: Annotated[str, AfterValidator(_timestamp)] | None = None
    started: Annotated[str, AfterValidator(_timestamp)] | None = None
    python: str | None = None
    platform: str | None = None
    versions: dict[str, str] = {}
    parts: dict[str, str] = {}
    images: ImageRecord | None = None


def read_metrics(path: Path) -> dict[str, Any]:
    """Read and check the content of ``metrics.json``.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If its content is not what a run writes.
    """
    try:
        tree = json.loads(path.read_bytes().decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return checked_as(Metrics, tree)


def checked_as(model: type[BaseModel], tree: Any) -> dict[str, Any]:
    """Return a table as it is, if it has the types and ranges of ``model``.

    Raises
    ------
    ValueError
        Otherwise; the text names the first entry that has not.
    """
    try:
        model.model_validate(tree)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        if problem["type"] == "missing":
            raise ValueError(f"{where!r} is missing") from None
        raise ValueError(
            f"{where!r}: {message}, got {reprlib.repr(problem['input'])}" if where else message
        ) from None
    return tree

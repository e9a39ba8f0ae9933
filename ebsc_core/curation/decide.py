"""Name, merge and split the clusters of a finished run, move images, and take decisions back.

Each function writes ``decisions.json`` (:mod:`ebsc_core.runs.store.decisions`) and returns the run as it is
then. A number that a cluster has had is given to another one only if the decision that made it is undone.

Each raises a RunDirectoryError if another program has decided about the run since ``run`` has read the
decisions, because one of the two would be lost.
"""

from __future__ import annotations

import operator
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ebsc_core.curation.lookup import positions_of
from ebsc_core.curation.names import NUMBER, checked_names
from ebsc_core.curation.splitting import parts_of
from ebsc_core.plugins.registry import Registry
from ebsc_core.runs.store.cluster_names import NONE
from ebsc_core.runs.store.decisions import (
    MAX_NUMBERS,
    Decision,
    Merge,
    Move,
    Name,
    Naming,
    Part,
    Split,
    write_decisions,
)
from ebsc_core.runs.store.directory import ASSIGNMENTS, DECISIONS
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.errors import ConfigError, RunDirectoryError, first_of, shortened
from ebsc_core.utils.files import lock
from ebsc_core.utils.progress import Progress


def name_clusters(run: SavedRun, names: Mapping[int, str] | Mapping[str, str]) -> SavedRun:
    """Give clusters names, which replace earlier ones; an empty name takes a name away.

    As everywhere in this module, a cluster is given by its number or by its name.

    Raises
    ------
    ConfigError
        If there is no such cluster, or a name cannot be used (:mod:`ebsc_core.curation.names`).
    """
    wanted = {cluster_number(run, cluster): name for cluster, name in names.items()}
    if len(wanted) < len(names):
        raise ConfigError("a cluster is given twice, by its number and its name; give each once")
    checked = checked_names(wanted, run.curated.names)
    if all(run.curated.names.get(number, "") == name for number, name in checked.items()):
        return run
    return _decided(run, Naming(names=[Name(number=n, name=name) for n, name in checked.items()]))


def merge_clusters(run: SavedRun, clusters: Sequence[int | str]) -> SavedRun:
    """Join clusters. The smallest number stays, with its name or else the first name of the others.

    Raises
    ------
    ConfigError
        If there is no such cluster, one is named twice, or fewer than two are named.
    """
    numbers = [cluster_number(run, cluster) for cluster in clusters]
    if len(set(numbers)) < 2 or len(set(numbers)) < len(numbers):
        given = " and ".join(map(str, numbers)) or "none"
        raise ConfigError(f"a merge needs two or more clusters, each named once; given: {given}")
    return _decided(run, Merge(numbers=numbers))


def split_cluster(
    run: SavedRun, cluster: int | str, into: int, registry: Registry, progress: Progress | None = None
) -> SavedRun:
    """Cut a cluster anew by the affinity that the run has saved (:mod:`ebsc_core.curation.splitting`).

    The largest part keeps the number and the name; the others get the next free numbers.

    Raises
    ------
    ConfigError
        If there is no such cluster, or it cannot be cut into so many parts.
    RunDirectoryError
        If the run has not saved what is needed.
    """
    number, into = cluster_number(run, cluster), _whole(into)
    if into < 2:
        raise ConfigError(f"a cluster cannot be cut into {into}; give a number of parts from 2")
    parts = parts_of(run, number, into, registry, progress or Progress())
    largest_first = sorted(parts, key=len, reverse=True)
    free = run.next_number
    if free + into > MAX_NUMBERS:
        raise ConfigError(f"no numbers are left for new clusters: {free} have been given")
    moved = [Part(number=free + i, rows=rows.tolist()) for i, rows in enumerate(largest_first[1:])]
    return _decided(run, Split(number=number, parts=moved))


def move_images(run: SavedRun, images: Iterable[int | str], cluster: int | str | None) -> SavedRun:
    """Move images, given by position or name, to a cluster of the run; None or ``none`` is no cluster.

    Moved images have the confidence 1, or 0 in no cluster, until their cluster is split. A cluster that is
    left empty is gone.

    Raises
    ------
    ConfigError
        If there is no such cluster or image, or no image would be left in any cluster.
    """
    if isinstance(cluster, str) and cluster.casefold() == NONE:
        cluster = None
    number = None if cluster is None else cluster_number(run, cluster)
    rows = positions_of(run.assignments.ids, images)
    after = run.curated.clusters.copy()
    after[rows] = -1 if number is None else number
    if (after < 0).all():
        raise ConfigError("no image would be left in any cluster; leave some")
    moved = np.flatnonzero(after != run.curated.clusters)
    return _decided(run, Move(number=number, rows=moved.tolist())) if len(moved) else run


def undo(run: SavedRun) -> tuple[SavedRun, Decision]:
    """Take the last decision back, and return it, too.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if not run.decisions:
        raise ConfigError(f"nothing was decided about {run.path}, so there is nothing to take back")
    *before, last = run.decisions
    return _written(run, before), last


def cluster_number(run: SavedRun, cluster: int | str) -> int:
    """Return the number of a cluster of a run that is given by its number or by its name.

    Raises
    ------
    ConfigError
        If there is no such cluster.
    """
    there, names = run.curated.numbers, run.curated.names
    if isinstance(cluster, str) and not NUMBER.fullmatch(cluster):
        called = unicodedata.normalize("NFC", cluster).casefold()
        found = [number for number, name in names.items() if name.casefold() == called]
        what = f"called {shortened(cluster)!r}"
    else:
        wanted = int(cluster) if isinstance(cluster, str) else _whole(cluster)
        found = [wanted] if wanted in there else []
        what = shortened(str(cluster))
    if found:
        return found[0]
    known = [f"{number} ({names[number]})" if number in names else str(number) for number in there]
    raise ConfigError(f"{run.path} has no cluster {what}; its clusters are {first_of(known, 20)}")


def _whole(number: int) -> int:
    """Return a whole number of any kind, such as NumPy's, as Python's own, which the file takes.

    Raises
    ------
    ConfigError
        If it is no whole number.
    """
    try:
        return operator.index(number)
    except TypeError:
        raise ConfigError(f"clusters and parts are counted by whole numbers, not by {number!r}") from None


def _decided(run: SavedRun, decision: Decision) -> SavedRun:
    return _written(run, [*run.decisions, decision])


def _written(run: SavedRun, decisions: Sequence[Decision]) -> SavedRun:
    assignments = run.files.file(ASSIGNMENTS)
    with assignments.open("rb") as file:  # its lock lets one program at a time decide
        if lock(file, shared=False) is False or SavedRun(run.path).decisions != run.decisions:
            raise RunDirectoryError(
                f"another program has decided about {run.path} meanwhile, so nothing was written; read the "
                "run again, and repeat this if it still fits"
            )
        write_decisions(run.path / DECISIONS, assignments, decisions)
    return SavedRun(run.path)

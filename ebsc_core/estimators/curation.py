"""Name, merge, split, correct, search and export the clusters of a fitted estimator."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy import sparse
from sklearn.utils.validation import check_is_fitted

from ebsc_core.estimators.settings import mistakes

if TYPE_CHECKING:  # they need torch, for which importing the package does not wait
    from ebsc_core.curation.duplicates import Duplicates
    from ebsc_core.curation.outliers import Outlier
    from ebsc_core.curation.similar import Similar


class CurationMixin:
    """Give an estimator with a finished run what the commands after ``ebsc run`` do."""

    _run: Any
    """The :class:`ebsc_core.estimators.finished_run.FinishedRun`."""
    verbose: bool

    def name_clusters(self, names: Mapping[int, str] | Mapping[str, str]) -> Self:
        """Give clusters, by number or former name, names as ``ebsc name`` does; an empty name takes one away.

        Like the other decisions, this is kept in ``decisions.json`` of the run; ``labels_`` stays.
        """
        from ebsc_core.curation.decide import name_clusters

        return self._decide(lambda run: name_clusters(run, names))

    def merge_clusters(self, *clusters: int | str) -> Self:
        """Join clusters, given by number or name, as ``ebsc merge`` does; the smallest number stays."""
        from ebsc_core.curation.decide import merge_clusters

        return self._decide(lambda run: merge_clusters(run, clusters))

    def split_cluster(self, cluster: int | str, into: int = 2) -> Self:
        """Cut a cluster, given by number or name, into parts; the largest part keeps the number.

        ``ebsc split`` does the same.
        """
        from ebsc_core.curation.decide import split_cluster
        from ebsc_core.estimators.progress import Spoken
        from ebsc_core.plugins.registry import Registry

        return self._decide(lambda run: split_cluster(run, cluster, into, Registry(), Spoken(self.verbose)))

    def move_images(self, images: Iterable[int | str], cluster: int | str | None) -> Self:
        """Move images, given by position or name, to a cluster as ``ebsc move`` does; None is no cluster."""
        from ebsc_core.curation.decide import move_images

        return self._decide(lambda run: move_images(run, images, cluster))

    def undo_decision(self) -> Self:
        """Take the last name, merge, split or move back."""
        from ebsc_core.curation.decide import undo

        return self._decide(lambda run: undo(run)[0])

    def cluster_tree(self) -> Any:
        """Return the tree of clusters of ``ebsc tree``: its ``nodes``, and as text with ``str``."""
        from ebsc_core.curation.tree import cluster_tree

        with self._opened() as run:
            return cluster_tree(run.saved)

    def memberships(self) -> sparse.csr_matrix:
        """Return the share of each image's affinity that goes to each cluster, ``(n_images, K)`` in [0, 1].

        The columns are the clusters of ``curated_labels_`` in ascending order. With ``dictionary_size``,
        images outside the sample have no shares.
        """
        from ebsc_core.curation.memberships import memberships

        with self._opened() as run:
            return memberships(run.saved).shares

    def export(self, out: str | PathLike[str], X: Any = None, **options: Any) -> None:
        """Write a folder for each cluster, as ``ebsc export --out`` does.

        Parameters
        ----------
        out : path-like
            A folder that does not exist yet.
        X : as for fit, optional
            The fitted images, if they were in memory; they are then written as PNG files.
        options
            ``copy``, ``typical``, ``doubtful`` and ``sheets``, as the flags of ``ebsc export``.
        """
        from ebsc_core.curation.export import Export
        from ebsc_core.curation.folders import FolderOptions
        from ebsc_core.estimators.progress import Spoken

        with self._opened() as run:
            wanted = Export(out=Path(os.path.expanduser(out)), folders=FolderOptions(**options))
            run.export(wanted, X, Spoken(self.verbose))

    def find_duplicates(self, images: Any = None, threshold: float | None = None) -> Duplicates:
        """Find groups of equal images, and of resized, recompressed or slightly cropped ones.

        Parameters
        ----------
        images : as for fit, default=None
            The fitted images, if they were in memory. Files are read again.
        threshold : float, default=None
            The least similarity of near duplicates, up to 1; by default it follows from the data.

        Returns
        -------
        Duplicates
            ``groups`` is a list of lists of records with ``position``, ``image``, ``kind`` (``keep``,
            ``exact`` or ``near``) and ``similarity``; ``threshold`` and ``pairs`` tell how they were found.
        """
        from ebsc_core.estimators.progress import Spoken

        with self._opened() as run:
            return run.duplicates(images, threshold, Spoken(self.verbose))

    def find_outliers(self, top: int = 50) -> list[Outlier]:
        """Rank the ``top`` images that belong least to the others, as records with figures and reasons."""
        from ebsc_core.curation.outliers import find_outliers

        with self._opened() as run:
            return find_outliers(run.saved, top)

    def find_similar(self, image: int | str | PathLike[str], top: int = 20) -> list[Similar]:
        """Find the ``top`` fitted images that are most similar to one, by the cosine of their rows.

        Parameters
        ----------
        image : int, str or path
            The position or name of a fitted image, or the file of a new one.
        top : int, default=20

        Returns
        -------
        list of Similar
            Records with ``position``, ``image``, ``similarity``, ``cluster`` and ``confidence``.
        """
        from ebsc_core.estimators.progress import Spoken

        with self._opened() as run:
            ids = run.saved.assignments.ids
            if isinstance(image, int | np.integer) and 0 <= image < len(ids):
                image = ids[int(image)]
            wanted = str(fspath(image) if isinstance(image, PathLike) else image)
            return run.similar(wanted, top, Spoken(self.verbose))

    @property
    def curated_labels_(self) -> np.ndarray:
        check_is_fitted(self)
        return self._run.saved.curated.clusters

    @property
    def cluster_names_(self) -> dict[int, str]:
        check_is_fitted(self)
        return dict(self._run.saved.curated.names)

    def _decide(self, decision: Any) -> Self:
        with self._opened() as run:
            run.decide(decision)
        return self

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """Yield the finished run; errors name parameters, and nothing depends on the caller's torch."""
        import torch

        from ebsc_core.estimators.torch_state import apart

        check_is_fitted(self)
        with mistakes(), apart(torch.device("cpu")):  # what needs the run's device finds it by itself
            yield self._run

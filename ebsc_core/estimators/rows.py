"""Cluster rows of features by self-expressive subspace clustering, with the interface of scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from ebsc_core.config.loading import flattened
from ebsc_core.estimators.settings import configuration, drawn_seed, mistakes
from ebsc_core.utils.errors import ConfigError

if TYPE_CHECKING:  # they need torch, for which importing the package does not wait
    from ebsc_core.curation.duplicates import Duplicates
    from ebsc_core.curation.outliers import Outlier

# The name of the rows where a run has the name of a file.
ROWS = "X"


class EnergySubspaceClustering(ClusterMixin, BaseEstimator):
    """Cluster rows of features: express each row by a few others, and partition that graph.

    This does the same as ``ebsc cluster``, in memory. Only the direction of a row counts: each row is
    scaled to unit length. A parameter that is None has the default of ``ebsc cluster``.

    Parameters
    ----------
    n_clusters : int or "auto", default=8
        The number of clusters, at least two; ``"auto"`` finds the number in the graph. It has no effect if
        the clusterer finds the number itself, as ``"HDBSCAN"`` does.
    coefficients : str, default=None
        The model that expresses rows by others; by default the energy network, which trains on the rows only
        if ``refine.steps`` is set. ``ebsc plugins list`` shows what is installed.
    clusterer : str, default=None
        The component that partitions the graph; by default spectral clustering with eigenvalue-weighted
        vectors.
    top_k : int, default=None
        Number of coefficients kept for each row. By default the model decides, or the mean cluster size (5
        to 10).
    whiten : bool or {"neighbors", "auto"}, default=None
        Whether to damp first what all rows have in common, or also what neighbours differ in
        (``"neighbors"``); by default the coefficient model decides, and the energy network takes another
        form if that keeps far more of the nearest neighbours together.
    dictionary_size : int, default=None
        If given, only a seeded sample of this many rows is clustered; the others are assigned to its
        clusters.
    settings : mapping, default=None
        Any other settings of a configuration file, e.g. ``{"refine.steps": 100, "affinity.form":
        "nearest_neighbors"}``.
    device : str, default=None
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; auto if None.
    random_state : int, RandomState instance or None, default=None
        Decides every random number. With an int, every fit gives the same clusters.
    verbose : bool, default=False
        Print the progress.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,)
        The cluster of each row, int64 from 0; -1 for noise, if the clusterer has a notion of noise.
    confidence_ : ndarray of shape (n_samples,)
        The share of a row's affinity that goes to rows which lie clearly in the same cluster.
    affinity_matrix_ : csr_matrix of shape (n_samples, n_samples)
        The affinity graph that was partitioned. With ``dictionary_size`` it covers only the rows at
        ``dictionary_indices_``.
    dictionary_indices_ : ndarray of shape (n_dictionary,)
        Positions of the rows that express the others: all rows unless ``dictionary_size`` is given.
    n_clusters_ : int
        The number of clusters, as given or as found.
    metrics_ : dict
        The label-free figures, as in ``metrics.json`` of a run.
    n_features_in_ : int
        Width of the rows.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X has names that are text.

    Raises
    ------
    EbscError
        From ``fit`` and ``predict``, with one line, for anything that the user can correct. It is also a
        ValueError if a parameter or X is wrong. If X is not a valid array, scikit-learn raises its own
        errors.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ebsc_core import EnergySubspaceClustering
    >>> X, y = load_digits(return_X_y=True)
    >>> model = EnergySubspaceClustering(n_clusters=10, random_state=0).fit(X[:1500])
    >>> later = model.predict(X[1500:])
    """

    def __init__(
        self,
        n_clusters: int | str = 8,
        *,
        coefficients: str | None = None,
        clusterer: str | None = None,
        top_k: int | None = None,
        whiten: bool | str | None = None,
        dictionary_size: int | None = None,
        settings: Mapping[str, Any] | None = None,
        device: str | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.n_clusters = n_clusters
        self.coefficients = coefficients
        self.clusterer = clusterer
        self.top_k = top_k
        self.whiten = whiten
        self.dictionary_size = dictionary_size
        self.settings = settings
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find clusters of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            A dense array; the computation uses float32.
        y : ignored
            Present by convention of scikit-learn.

        Returns
        -------
        self
        """
        # Import here, so that importing the package does not wait for torch.
        from ebsc_core.estimators.clustered_rows import ClusteredRows
        from ebsc_core.estimators.progress import Spoken

        X = validate_data(self, X, dtype=np.float32, ensure_min_samples=2)
        with mistakes():
            clustered = ClusteredRows(X, self._configuration(), Spoken(self.verbose))
        self._clustered = clustered
        self.labels_, self.confidence_ = clustered.labels, clustered.confidence
        self.affinity_matrix_, self.dictionary_indices_ = clustered.affinity, clustered.positions
        self.n_clusters_, self.metrics_ = clustered.resolved.n_clusters, clustered.figures
        return self

    def fit_predict(self, X: Any, y: Any = None, **params: Any) -> np.ndarray:
        """Fit the rows and return their clusters ``(n_samples,)``."""
        return self.fit(X, **params).labels_

    def predict(self, X: Any, return_confidence: bool = False) -> Any:
        """Assign new rows to the clusters that get most of their coefficients over the fitted rows.

        The fitted rows stay in their clusters. If ``X`` contains fitted rows, they are treated as new ones.
        Near the border of two clusters the result may then differ from ``labels_``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        return_confidence : bool, default=False
            Whether to return the share of these coefficients as well, where each fitted row counts by its
            own confidence.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            The cluster of each row; -1 if no row of any cluster expresses it.
        confidence : ndarray of shape (n_samples,)
            Only if requested.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        with mistakes():
            labels, confidence = self._clustered.predict(X)
        return (labels, confidence) if return_confidence else labels

    def memberships(self) -> sparse.csr_matrix:
        """Return the share of each row's affinity that goes to each cluster, ``(n_samples, K)`` in [0, 1].

        The columns are the clusters of ``labels_`` in ascending order. With ``dictionary_size``, rows outside
        the sample have no shares.
        """
        from ebsc_core.curation.memberships import memberships_of

        check_is_fitted(self)
        return memberships_of(self._clustered.graph, list(self._sizes()), len(self.labels_)).shares

    def cluster_tree(self) -> Any:
        """Return the tree of clusters, as ``ebsc tree`` shows it: its ``nodes``, and as text with ``str``."""
        from ebsc_core.curation.tree import tree_of

        check_is_fitted(self)
        with mistakes():
            return tree_of(self._clustered.graph, self._sizes(), {})

    def _sizes(self) -> dict[int, int]:
        numbers, counts = np.unique(self.labels_[self.labels_ >= 0], return_counts=True)
        return dict(zip(numbers.tolist(), counts.tolist(), strict=True))

    def find_duplicates(self, threshold: float | None = None) -> Duplicates:
        """Find groups of equal and nearly equal fitted rows.

        The similarity is the cosine. ``threshold`` is its least value for near duplicates, up to 1; by
        default it follows from the data. ``groups`` of the result is a list of lists of records with
        ``position``, ``kind`` (``keep``, ``exact`` or ``near``) and ``similarity``.
        """
        check_is_fitted(self)
        with mistakes():
            return self._clustered.find_duplicates(threshold)

    def find_outliers(self, top: int = 50) -> list[Outlier]:
        """Rank the ``top`` fitted rows that belong least to the others, as records with reasons."""
        check_is_fitted(self)
        with mistakes():
            return self._clustered.find_outliers(top)

    def find_similar(self, X: Any, top: int = 20) -> tuple[np.ndarray, np.ndarray]:
        """Find the fitted rows that are most similar to a new row.

        Parameters
        ----------
        X : array-like of shape (1, n_features)
            A row; if it is a fitted one, it finds itself first.
        top : int, default=20

        Returns
        -------
        positions : ndarray of shape (top,)
            Positions among the fitted rows, the most similar first.
        cosines : ndarray of shape (top,)
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        with mistakes():
            if len(X) != 1:
                raise ConfigError(f"X has {len(X)} rows; give one")
            return self._clustered.find_similar(X, top)

    def _configuration(self) -> Any:
        settings = self.settings if isinstance(self.settings, Mapping) else {}
        if "n_clusters" in settings:
            raise ConfigError("'n_clusters' has no effect in settings; give it as the parameter of this name")
        read = [name for name, _ in flattened(settings) if name.partition(".")[0] == "features"]
        if read:
            raise ConfigError(f"{read[0]!r} has no effect: the rows are X, no file is read; leave it out")
        seeded = self.random_state is None and "seed" in settings
        config = configuration(
            None,
            self.settings,
            {
                "features.path": ROWS,
                "n_clusters": self.n_clusters,
                "coefficients.name": self.coefficients,
                "clusterer.name": self.clusterer,
                "top_k": self.top_k,
                "whiten": self.whiten,
                "dictionary_size": self.dictionary_size,
                "device": self.device,
                "seed": None if seeded else drawn_seed(self.random_state),
            },
        )
        useless = sorted({"out", "observers", "cache", "like"} & config.model_fields_set)
        if useless:
            raise ConfigError(f"{useless[0]!r} has no effect: rows are clustered without a run directory")
        return config

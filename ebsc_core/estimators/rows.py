"""Self-expressive subspace clustering of rows of features, as scikit-learn knows clusterers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from ebsc_core.estimators.settings import configuration, drawn_seed, mistakes
from ebsc_core.utils.errors import ConfigError

# What the rows are called where a run has the name of a file.
ROWS = "X"


class EnergySubspaceClustering(ClusterMixin, BaseEstimator):
    """Cluster rows of features: each is expressed by a few others, and the graph of that is cut.

    What ``ebsc cluster`` does, in memory. Rows count by their direction alone: each is scaled to unit length.
    Whatever is left at None is what ``ebsc cluster`` does by default.

    Parameters
    ----------
    n_clusters : int or "auto", default=8
        How many clusters to look for, two or more; ``"auto"`` finds the number in the graph.
    coefficients : str, default=None
        The model that expresses rows by others; by default the energy network, which is trained on the rows.
        ``ebsc plugins list`` shows what is installed.
    clusterer : str, default=None
        What cuts the graph; by default spectral clustering with eigenvalue-weighted vectors.
    top_k : int, default=None
        Coefficients kept per row; by default what the model wants or, from the mean cluster size, 5 to 10.
    whiten : bool or {"auto", "choose"}, default=None
        Damp what the rows have in common first; by default as the coefficient model prefers. ``"choose"``
        tries both ways and takes the one whose clusters keep more of their affinity within them.
    dictionary_size : int, default=None
        Cluster a seeded sample of this many rows, which the others join.
    settings : mapping, default=None
        Anything else that a configuration file can say, e.g. ``{"refine.steps": 100, "affinity.form":
        "nearest_neighbors"}``.
    device : str, default=None
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; auto if None.
    random_state : int, RandomState instance or None, default=None
        Decides every random number; with an int, every fit gives the same clusters.
    verbose : bool, default=False
        Print what is being done.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,)
        The cluster of each row, int64 from 0; -1 for noise, with clusterers that know it.
    confidence_ : ndarray of shape (n_samples,)
        Share of a row's affinity that stays within its cluster.
    affinity_matrix_ : csr_matrix of shape (n_samples, n_samples)
        The graph that was cut; with ``dictionary_size``, of the rows at ``dictionary_indices_`` alone.
    dictionary_indices_ : ndarray of shape (n_dictionary,)
        Positions of the rows that express the others: all of them unless ``dictionary_size`` is given.
    n_clusters_ : int
        How many clusters were looked for, or found to be there.
    metrics_ : dict
        Figures that need no labels, as ``metrics.json`` of a run has them.
    n_features_in_ : int
        Width of the rows.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X had some that are text.

    Raises
    ------
    EbscError
        From ``fit`` and ``predict``, for whatever the user can mend, in one line; also a ValueError where a
        parameter or X is wrong. Of what is wrong with X as an array, scikit-learn says so.

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
            Dense; computed with as float32.
        y : ignored
            Present for the conventions of scikit-learn.

        Returns
        -------
        self
        """
        # Imported here, so that importing the package does not wait for torch.
        from ebsc_core.estimators.clustered_rows import ClusteredRows
        from ebsc_core.estimators.progress import Spoken

        X = validate_data(self, X, dtype=np.float32, ensure_min_samples=2)
        with mistakes():
            self._found = found = ClusteredRows(X, self._configuration(), Spoken(self.verbose))
        self.labels_, self.confidence_ = found.found.clusters, found.found.confidence
        self.affinity_matrix_, self.dictionary_indices_ = found.affinity, found.positions
        self.n_clusters_, self.metrics_ = found.resolved.n_clusters, found.figures
        return self

    def fit_predict(self, X: Any, y: Any = None, **params: Any) -> np.ndarray:
        """The clusters ``(n_samples,)`` that :meth:`fit` finds."""
        return self.fit(X, **params).labels_

    def predict(self, X: Any, return_confidence: bool = False) -> Any:
        """The clusters that new rows join: each goes where most of its coefficients over the fitted ones go.

        Nothing changes for the fitted rows. These, too, are taken as new, and may end up elsewhere than
        ``labels_`` says where two clusters meet.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        return_confidence : bool, default=False
            Whether to return that share as well.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            -1 for a row that no row of any cluster expresses.
        confidence : ndarray of shape (n_samples,)
            Only if asked for.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        with mistakes():
            found = self._found.assign(X)
        return (found.clusters, found.confidence) if return_confidence else found.clusters

    def _configuration(self) -> Any:
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
                "seed": drawn_seed(self.random_state),
            },
        )
        useless = sorted({"out", "observers", "cache"} & config.model_fields_set)
        if useless:
            raise ConfigError(f"{useless[0]!r} says nothing here: rows are clustered without a run directory")
        return config

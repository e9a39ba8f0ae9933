"""Cluster images by deep subspace clustering, with the interface of scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Self

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from ebsc_core.estimators.curation import CurationMixin
from ebsc_core.estimators.settings import image_configuration, mistakes


class EBSC(CurationMixin, ClusterMixin, BaseEstimator):
    """Cluster images: train a representation, express each image by others, and partition that graph.

    This does the same as ``ebsc run``, with the same results. A parameter that is None has the value of the
    configuration file, or else the default of ``ebsc run``.

    Parameters
    ----------
    n_clusters : int or "auto", default=None
        The number of clusters. By default it is the number of classes if the images have labels. ``"auto"``
        finds the number in the graph. It has no effect if the clusterer finds the number itself.
    backbone : str, default=None
        The network that computes features: any timm model by name, or a component from ``ebsc plugins
        list``; by default a ResNet-18.
    objective : str, default=None
        The self-supervised objective; by default SimCLR.
    coefficients : str, default=None
        The model that expresses images by others; by default the energy network.
    clusterer : str, default=None
        The component that partitions the graph; by default spectral clustering with eigenvalue-weighted
        vectors.
    epochs : int, default=None
        Number of passes over the images; 0 uses the backbone as it is. By default 40, or 0 if the backbone
        starts from trained weights (``settings={"backbone.pretrained": True}``).
    batch_size : int, default=None
        Number of images in each step; by default 256, or 128 if there are fewer than 5,000 images.
    dictionary_size : int, default=None
        If given, only a seeded sample of this many images is clustered; the others are assigned to its
        clusters.
    settings : mapping, default=None
        Any other settings of a configuration file, with dotted names or as nested tables, e.g.
        ``{"objective.temperature": 0.3, "train": {"lr": 5e-4}}``.
    config : path-like, default=None
        A TOML file like that of ``ebsc run --config``, for instance the ``run.toml`` of another run.
        Settings and parameters override it.
    run_dir : path-like, default=None
        The directory of the run, with everything that ``ebsc run`` writes. It must be new or empty, or hold
        an unfinished run, which is then resumed. By default it is a temporary directory, which is deleted
        together with the estimator.
    cache : path-like, default=None
        The folder that keeps trained features for reuse; by default that of ``ebsc run``. ``"none"`` keeps
        nothing.
    device : str, default=None
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; auto if None.
    random_state : int or RandomState instance, default=None
        Decides every random number. By default it is the seed of the configuration file, or 0.
    verbose : bool, default=False
        Print the progress. In any case, the logger ``ebsc`` gets the messages.

    Attributes
    ----------
    labels_ : ndarray of shape (n_images,)
        The cluster of each image, int64 from 0; -1 for noise, if the clusterer has a notion of noise.
    confidence_ : ndarray of shape (n_images,)
        The share of an image's affinity that goes to images which lie clearly in the same cluster.
    ids_ : list of str
        The names of the images in the same order: paths within a folder, or positions.
    n_clusters_ : int
        The number of clusters, as given or as found.
    scores_ : dict or None
        ACC, NMI and ARI of the clusters against the labels, and the accuracy of a vote of the nearest
        neighbours of each row (``knn_accuracy``), if there are labels.
    metrics_ : dict
        Everything in ``metrics.json`` of the run: label-free figures, timings, training history.
    run_dir_ : Path
        The directory of the run.
    curated_labels_ : ndarray of shape (n_images,)
        ``labels_`` after all decisions: merges, splits and moves. ``labels_`` stays as ``fit`` found it, and
        ``predict`` follows the decisions.
    cluster_names_ : dict
        The names that were given to clusters, by number.
    embedding_ : ndarray of shape (n_images, width)
        The rows that were clustered, of unit length; read from the run on demand.
    affinity_ : csr_matrix
        The affinity graph that was partitioned; read from the run on demand.

    Raises
    ------
    EbscError
        From ``fit``, ``predict`` and ``transform``, with one line, for anything that the user can correct.
        It is also a ValueError if a parameter or the images are wrong.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ebsc_core import EBSC
    >>> images = load_digits().images / 16
    >>> model = EBSC(n_clusters=10, backbone="identity", epochs=0)
    >>> labels = model.fit_predict(images[:1500])
    >>> later = model.predict(images[1500:])
    """

    def __init__(
        self,
        n_clusters: int | str | None = None,
        *,
        backbone: str | None = None,
        objective: str | None = None,
        coefficients: str | None = None,
        clusterer: str | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        dictionary_size: int | None = None,
        settings: Mapping[str, Any] | None = None,
        config: str | PathLike[str] | None = None,
        run_dir: str | PathLike[str] | None = None,
        cache: str | PathLike[str] | None = None,
        device: str | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.n_clusters = n_clusters
        self.backbone = backbone
        self.objective = objective
        self.coefficients = coefficients
        self.clusterer = clusterer
        self.epochs = epochs
        self.batch_size = batch_size
        self.dictionary_size = dictionary_size
        self.settings = settings
        self.config = config
        self.run_dir = run_dir
        self.cache = cache
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @classmethod
    def load(cls, run_dir: str | PathLike[str], device: str = "auto") -> Self:
        """Load the estimator of a finished run, from Python or from the command line; nothing is unpickled.

        If it is fitted again, it repeats such a run on other images.

        Raises
        ------
        EbscError
            If the directory holds no finished run on images.
        """
        from ebsc_core.estimators.finished_run import FinishedRun, Folder

        with mistakes():
            return cls(config=Path(run_dir, "run.toml"), device=device)._adopt(
                FinishedRun(Folder(fspath(run_dir)), device)
            )

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find clusters of images.

        Parameters
        ----------
        X : array, tensor, data set, list, or str or path
            ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)``, uint8 or floats in [0, 1]; a list, a
            column of a table or a map-style data set (of torch or Hugging Face) of such arrays, PIL images
            or paths of image files, alone, as the first entry of a tuple or as ``image`` of a mapping;
            or a value of ``ebsc run --data``: the name of a data set, a folder, a .zip, .npz or .npy.
        y : array-like of shape (N,), optional
            The classes. They enter ``scores_`` only and, if ``n_clusters`` is not set, their number.

        Returns
        -------
        self
        """
        # Import here, so that importing the package does not wait for torch.
        from ebsc_core.estimators.finished_run import run_images
        from ebsc_core.estimators.progress import Spoken

        progress = Spoken(self.verbose)
        with mistakes():
            config = image_configuration(self.get_params(deep=False), X, progress.warn)
            return self._adopt(run_images(config, X, y, progress))

    def fit_predict(self, X: Any, y: Any = None, **params: Any) -> np.ndarray:
        """Fit the images and return their clusters ``(n_images,)``."""
        return self.fit(X, y, **params).labels_

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit the images and return their rows ``embedding_``."""
        return self.fit(X, y).embedding_

    def predict(self, X: Any, return_confidence: bool = False) -> Any:
        """Assign new images to the clusters that get most of their coefficients over the fitted images.

        Merges and splits of clusters count. The fitted images stay in their clusters. If ``X`` contains
        fitted images, they are treated as new ones. Near the border of two clusters the result may then
        differ from ``labels_``.

        Parameters
        ----------
        X : as for fit
            Images of the size of the fitted ones, grey or colour.
        return_confidence : bool, default=False
            Whether to return the share of these coefficients as well, where each fitted image counts by its
            own confidence.

        Returns
        -------
        labels : ndarray of shape (n_images,)
            The cluster of each image; -1 if no image of any cluster expresses it.
        confidence : ndarray of shape (n_images,)
            Only if requested.
        """
        from ebsc_core.estimators.progress import Spoken

        check_is_fitted(self)
        with mistakes():
            labels, confidence = self._run.assign(X, Spoken(self.verbose))
        return (labels, confidence) if return_confidence else labels

    def transform(self, X: Any) -> np.ndarray:
        """Compute unit-length rows of images, ``(n_images, width)`` float32, like ``embedding_``."""
        from ebsc_core.estimators.progress import Spoken

        check_is_fitted(self)
        with mistakes():
            return self._run.rows(X, Spoken(self.verbose))

    @property
    def run_dir_(self) -> Path:
        check_is_fitted(self)
        return self._run.folder.path

    @property
    def embedding_(self) -> np.ndarray:
        check_is_fitted(self)
        return self._run.saved.rows.held().numpy()

    @property
    def affinity_(self) -> sparse.csr_matrix:
        check_is_fitted(self)
        return self._run.saved.affinity

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        return tags

    def _adopt(self, run: Any) -> Self:
        self._run, found = run, run.saved.assignments
        self.labels_, self.confidence_, self.ids_ = found.clusters, found.confidence, found.ids
        self.metrics_ = run.saved.metrics
        self.scores_ = self.metrics_["scores"]
        # No number was asked for if the clusterer finds it itself.
        self.n_clusters_ = run.saved.config.n_clusters or len(np.unique(found.clusters[found.clusters >= 0]))
        return self

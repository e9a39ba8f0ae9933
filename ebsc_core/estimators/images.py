"""Deep subspace clustering of images, as scikit-learn knows clusterers."""

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

from ebsc_core.estimators.settings import image_configuration, mistakes


class EBSC(ClusterMixin, BaseEstimator):
    """Cluster images: train a representation, express each image by others, cut the graph of that.

    What ``ebsc run`` does, with the same results. Whatever is left at None is what the configuration file
    says, or else what ``ebsc run`` does by default.

    Parameters
    ----------
    n_clusters : int or "auto", default=None
        How many clusters to look for; by default the number of classes, if the images have labels.
        ``"auto"`` finds the number in the graph.
    backbone : str, default=None
        What makes features of images: any timm model by its name, or a part that ``ebsc plugins list`` shows;
        by default a ResNet-18.
    objective : str, default=None
        The self-supervised objective; by default SimCLR.
    coefficients : str, default=None
        The model that expresses images by others; by default the energy network.
    clusterer : str, default=None
        What cuts the graph; by default spectral clustering with eigenvalue-weighted vectors.
    epochs : int, default=None
        Passes over the images, 40 by default; 0 uses the backbone as it is.
    batch_size : int, default=None
        Images per step; by default 256, below 5,000 images 128.
    dictionary_size : int, default=None
        Cluster a seeded sample of this many images, which the others join.
    settings : mapping, default=None
        Anything else that a configuration file can say, by dotted names or as tables in tables, e.g.
        ``{"objective.temperature": 0.3, "train": {"lr": 5e-4}}``.
    config : path-like, default=None
        A TOML file as ``ebsc run --config`` takes it, such as ``run.toml`` of another run; settings and
        parameters win over it.
    run_dir : path-like, default=None
        Where the run is written, with all that ``ebsc run`` leaves; a folder that is new, empty, or of a run
        that was stopped, which then goes on. By default a temporary one, which goes when the estimator does.
    cache : path-like, default=None
        Where trained features are kept for reuse; by default where ``ebsc run`` keeps them. ``"none"`` for
        nowhere.
    device : str, default=None
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; auto if None.
    random_state : int or RandomState instance, default=None
        Decides every random number; by default as the configuration file says, or 0.
    verbose : bool, default=False
        Print what is being done.

    Attributes
    ----------
    labels_ : ndarray of shape (n_images,)
        The cluster of each image, int64 from 0; -1 for noise, with clusterers that know it.
    confidence_ : ndarray of shape (n_images,)
        Share of an image's affinity that stays within its cluster, to four digits.
    ids_ : list of str
        What the images are called, in the same order: their paths within a folder, else their positions.
    n_clusters_ : int
        How many clusters were looked for, or found to be there.
    scores_ : dict or None
        ACC, NMI and ARI against the labels, where there are any.
    metrics_ : dict
        Everything that ``metrics.json`` of a run has: figures without labels, timings, training history.
    run_dir_ : Path
        The directory of the run.
    embedding_ : ndarray of shape (n_images, width)
        The rows that express one another, of unit length; read from the run when asked for.
    affinity_ : csr_matrix
        The graph that was cut; read from the run when asked for.

    Raises
    ------
    EbscError
        From ``fit``, ``predict`` and ``transform``, for whatever the user can mend, in one line; also a
        ValueError where a parameter or the images are wrong.

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
        """The estimator of a finished run, from Python or from the command line; nothing is unpickled.

        Fitted anew, it does such a run on other images.

        Raises
        ------
        EbscError
            If there is no finished run on images.
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
            ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)``, uint8 or floats in [0, 1]; a map-style data
            set of torch or a list, of pictures (of PIL) or such arrays, alone or first in tuples; or what
            ``ebsc run --data`` takes: a data set's name, a folder, a .zip or .npz.
        y : array-like of shape (N,), optional
            Classes, for ``scores_`` only and, where nobody says ``n_clusters``, for their number.

        Returns
        -------
        self
        """
        # Imported here, so that importing the package does not wait for torch.
        from ebsc_core.estimators.finished_run import run_images
        from ebsc_core.estimators.progress import Spoken

        progress = Spoken(self.verbose)
        with mistakes():
            config = image_configuration(self.get_params(deep=False), X, progress.warn)
            return self._adopt(run_images(config, X, y, progress))

    def fit_predict(self, X: Any, y: Any = None, **params: Any) -> np.ndarray:
        """The clusters ``(n_images,)`` that :meth:`fit` finds."""
        return self.fit(X, y, **params).labels_

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """The rows ``embedding_`` that :meth:`fit` finds."""
        return self.fit(X, y).embedding_

    def predict(self, X: Any, return_confidence: bool = False) -> Any:
        """The clusters that new images join: each goes where most of its coefficients over the fitted go.

        Nothing changes for the fitted images. These, too, are taken as new, and may end up elsewhere than
        ``labels_`` says where two clusters meet.

        Parameters
        ----------
        X : as for fit
            Of the size of the fitted ones; grey or colour.
        return_confidence : bool, default=False
            Whether to return that share as well.

        Returns
        -------
        labels : ndarray of shape (n_images,)
            -1 for an image that none of any cluster expresses.
        confidence : ndarray of shape (n_images,)
            Only if asked for.
        """
        from ebsc_core.estimators.progress import Spoken

        check_is_fitted(self)
        with mistakes():
            assignments = self._run.assign(X, Spoken(self.verbose))
        return (assignments.clusters, assignments.confidence) if return_confidence else assignments.clusters

    def transform(self, X: Any) -> np.ndarray:
        """The rows of images, ``(n_images, width)`` float32 of unit length: of the fitted, ``embedding_``."""
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
        self._run, assignments = run, run.saved.assignments
        self.labels_, self.confidence_, self.ids_ = (
            assignments.clusters,
            assignments.confidence,
            assignments.ids,
        )
        self.metrics_ = run.saved.metrics
        self.scores_ = self.metrics_["scores"]
        self.n_clusters_ = run.saved.config.n_clusters
        return self

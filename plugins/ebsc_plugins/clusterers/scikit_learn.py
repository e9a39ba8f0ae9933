"""Use any clusterer of scikit-learn, by its class name."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import cache, partial
from typing import Any, Literal

import numpy as np
from pydantic import Field, create_model
from scipy import sparse
from sklearn.utils import all_estimators

from ebsc_core import Clusterer, ComponentSpec, ConfigError, Options, text_of

# Its default RBF kernel would build an N×N matrix, although a sparse affinity is available.
PREFERRED = {"SpectralClustering": {"affinity": "precomputed"}}
# The run sets these parameters.
RESERVED = ("n_clusters", "random_state")


class ScikitLearnClusterer(Clusterer):
    """Wrap one estimator of scikit-learn.

    Noise rows (-1) stay -1, and the estimator's warnings become warnings of the run.
    """

    def __init__(self, estimator_class: type, options: Options, n_clusters: int, seed: int) -> None:
        parameters = options.model_dump()
        known = estimator_class().get_params()
        # Many estimators find the number; agglomeration does so up to a distance, and then wants no number.
        self.finds_number = "n_clusters" not in known or parameters.get("distance_threshold") is not None
        settings = {"n_clusters": None if self.finds_number else n_clusters, "random_state": seed}
        parameters |= {name: value for name, value in settings.items() if name in known}
        self.estimator, self.n_clusters = estimator_class(**parameters), n_clusters
        precomputed = "precomputed" in (parameters.get("affinity"), parameters.get("metric"))
        if precomputed and parameters.get("affinity") != "precomputed":
            raise ConfigError(
                "clusterer.metric 'precomputed' needs distances; an ebsc run has an affinity or features"
            )
        self.consumes: Literal["affinity", "features"] = (  # type: ignore[misc]
            "affinity" if precomputed else "features"
        )

    def fit_predict(self, data: sparse.csr_matrix | np.ndarray) -> np.ndarray:
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                labels = self.estimator.fit_predict(data)
        except (ValueError, TypeError) as error:  # includes scikit-learn's InvalidParameterError
            name = type(self.estimator).__name__
            raise ConfigError(f"clusterer {name}: {text_of(error)}") from None
        # UserWarnings are for users; other warnings (FutureWarning) are for programmers and are not shown.
        messages = [" ".join(str(w.message).split()) for w in caught if issubclass(w.category, UserWarning)]
        n_found = len(np.unique(labels[labels >= 0]))
        if n_found != self.n_clusters and not self.finds_number:
            messages.append(
                f"{type(self.estimator).__name__} found {n_found} clusters, not {self.n_clusters}"
            )
        self.warnings_ = list(dict.fromkeys(messages))
        return np.asarray(labels, dtype=np.int64)


@cache
def _estimators() -> dict[str, type]:
    return {
        name: estimator
        for name, estimator in all_estimators(type_filter="cluster")
        if callable(getattr(estimator, "fit_predict", None))
    }


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def resolve(name: str) -> ComponentSpec | None:
    """Find a clusterer by name; ``KMeans``, ``kmeans`` and ``k-means`` are the same name."""
    for class_name, estimator_class in _estimators().items():
        if _plain(class_name) == _plain(name):
            return ComponentSpec(
                name,
                f"{class_name} of scikit-learn",
                partial(ScikitLearnClusterer, estimator_class),
                options=_options(class_name, estimator_class),
            )
    return None


def names() -> Iterable[str]:
    """List the class names of all clusterers."""
    return _estimators()


def _options(class_name: str, estimator_class: type) -> type[Options]:
    """Build an options model of the constructor's parameters; scikit-learn checks their values itself."""
    defaults = estimator_class().get_params(deep=False) | PREFERRED.get(class_name, {})
    description = f"This is a parameter of scikit-learn's {class_name}; see its documentation."
    fields: dict[str, Any] = {
        name: (Any, Field(value, description=description))
        for name, value in defaults.items()
        if name not in RESERVED
    }
    with warnings.catch_warnings():  # an option may be named `copy`, like a (deprecated) method of pydantic
        warnings.filterwarnings("ignore", message="Field name .* shadows an attribute")
        model: type[Options] = create_model(f"{class_name}Options", __base__=Options, **fields)
    return model

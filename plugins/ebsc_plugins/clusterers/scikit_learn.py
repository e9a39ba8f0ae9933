"""Any clusterer of scikit-learn, by its class name."""

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

# With its default RBF kernel it would build an N×N matrix where a sparse affinity is at hand.
PREFERRED = {"SpectralClustering": {"affinity": "precomputed"}}
# The run decides these.
RESERVED = ("n_clusters", "random_state")


class ScikitLearnClusterer(Clusterer):
    """Wraps one estimator. Rows it calls noise (-1) stay -1; its warnings become ours."""

    def __init__(self, estimator_class: type, options: Options, n_clusters: int, seed: int) -> None:
        parameters = options.model_dump()
        known = estimator_class().get_params()
        settings = {"n_clusters": n_clusters, "random_state": seed}
        parameters |= {name: value for name, value in settings.items() if name in known}
        self.estimator, self.n_clusters = estimator_class(**parameters), n_clusters
        precomputed = "precomputed" in (parameters.get("affinity"), parameters.get("metric"))
        if precomputed and parameters.get("affinity") != "precomputed":
            raise ConfigError(
                "clusterer.metric 'precomputed' asks for distances; an ebsc run has an affinity or features"
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
        # What scikit-learn says to its user; what it says to programmers (FutureWarning) is not for ours.
        messages = [" ".join(str(w.message).split()) for w in caught if issubclass(w.category, UserWarning)]
        n_found = len(np.unique(labels[labels >= 0]))
        if n_found != self.n_clusters:  # as with those that settle the number themselves
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
    """``KMeans``, ``kmeans`` and ``k-means`` are the same."""
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
    """Class names of all clusterers."""
    return _estimators()


def _options(class_name: str, estimator_class: type) -> type[Options]:
    """The constructor's parameters as an options model; scikit-learn checks their values itself."""
    defaults = estimator_class().get_params(deep=False) | PREFERRED.get(class_name, {})
    description = f"Parameter of scikit-learn's {class_name}; see its documentation."
    fields: dict[str, Any] = {
        name: (Any, Field(value, description=description))
        for name, value in defaults.items()
        if name not in RESERVED
    }
    with warnings.catch_warnings():  # an option may be called `copy` like a (deprecated) method of pydantic's
        warnings.filterwarnings("ignore", message="Field name .* shadows an attribute")
        model: type[Options] = create_model(f"{class_name}Options", __base__=Options, **fields)
    return model

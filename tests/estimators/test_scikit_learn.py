"""The contract of scikit-learn's estimators, by its own checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sklearn.base import BaseEstimator
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from ebsc_core import EnergySubspaceClustering

REASON = "it asks for one cluster, and to look for fewer than two is an error"
OF_ONE_CLUSTER = (
    "check_dont_overwrite_parameters",
    "check_fit2d_1feature",
    "check_fit2d_predict1d",
    "check_methods_subset_invariance",
)
ESTIMATORS = [
    EnergySubspaceClustering(settings={"refine.steps": 5}),
    EnergySubspaceClustering(coefficients="knn"),
]


def expected_failures(estimator: BaseEstimator) -> dict[str, str]:
    return dict.fromkeys(OF_ONE_CLUSTER, REASON)


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_failures)
def test_it_is_an_estimator(estimator: BaseEstimator, check: Callable[[BaseEstimator], None]) -> None:
    check(estimator)


class OfTwo(EnergySubspaceClustering):
    """Where a check asks for one cluster, it looks for two."""

    def _configuration(self) -> Any:
        asked, self.n_clusters = self.n_clusters, 2
        try:
            return super()._configuration()
        finally:
            self.n_clusters = asked


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
@pytest.mark.parametrize("check", OF_ONE_CLUSTER)
def test_with_two_clusters_it_meets_the_rest_of_the_contract(
    estimator: EnergySubspaceClustering, check: str
) -> None:
    getattr(estimator_checks, check)("OfTwo", OfTwo(**estimator.get_params()))

"""Contract checks for people who write plugins: one line of a test file checks a part.

::

    from ebsc_core.testing import objective_checks

    test_contract = objective_checks("my-loss")

makes a pytest test ``test_contract[...]`` of every check there is for an objective; ``ebsc plugins check
my-loss`` runs the same without pytest. What each checks and why is in ``docs/plugins/checks.md``.

All five functions take the name the part is registered under, as a user would type it, or the
:class:`ebsc_core.ComponentSpec` that a hook would yield, and

``options``
    Options of the part that are not to have their default values: small sizes make checks fast.
``expected_failures``
    From the ids of checks that are known to fail to the reason, a sentence. One that passes after all fails
    the test, so that the list stays true.

A check that has nothing to look at (no parameters to train, no graph) is skipped and says why, as are those
that make no sense where a more basic one has failed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebsc_core.plugins.hookspecs import ComponentSpec
from ebsc_core.plugins.registry import Kind

if TYPE_CHECKING:
    from ebsc_core.testing.checks import Check

__all__ = [
    "backbone_checks",
    "clusterer_checks",
    "coefficient_model_checks",
    "dataset_checks",
    "objective_checks",
]

Test = Callable[["Check"], None]
Options = Mapping[str, Any] | None
Reasons = Mapping[str, str] | None


def dataset_checks(
    part: str | ComponentSpec,
    *,
    data: str | Path | Callable[[], str | Path] | None = None,
    root: str | Path | None = None,
    options: Options = None,
    expected_failures: Reasons = None,
) -> Test:
    """A pytest test of what a data set owes the framework.

    Parameters
    ----------
    part : str or ComponentSpec
        Its name; with ``data``, the name of the family that is to open it.
    data : str, Path or callable, optional
        What to open, for readers of a file type: ``dataset_checks("my-format", data="tests/few.xyz")``. A
        function makes it when the first check is run.
    root : str or Path, optional
        Where named data sets are kept; by default in the user's cache.
    options, expected_failures
        See :mod:`ebsc_core.testing`.
    """
    return _checks(Kind.DATA, part, options, expected_failures, data=data, root=root)


def backbone_checks(
    part: str | ComponentSpec, *, options: Options = None, expected_failures: Reasons = None
) -> Test:
    """A pytest test of what a backbone owes the framework; arguments: see :mod:`ebsc_core.testing`."""
    return _checks(Kind.BACKBONE, part, options, expected_failures)


def objective_checks(
    part: str | ComponentSpec, *, options: Options = None, expected_failures: Reasons = None
) -> Test:
    """A pytest test of what an objective owes the framework; arguments: see :mod:`ebsc_core.testing`."""
    return _checks(Kind.OBJECTIVE, part, options, expected_failures)


def coefficient_model_checks(
    part: str | ComponentSpec, *, options: Options = None, expected_failures: Reasons = None
) -> Test:
    """A pytest test of what a coefficient model owes; arguments: see :mod:`ebsc_core.testing`."""
    return _checks(Kind.COEFFICIENTS, part, options, expected_failures)


def clusterer_checks(
    part: str | ComponentSpec, *, options: Options = None, expected_failures: Reasons = None
) -> Test:
    """A pytest test of what a clusterer owes the framework; arguments: see :mod:`ebsc_core.testing`."""
    return _checks(Kind.CLUSTERER, part, options, expected_failures)


def _checks(kind: Kind, part: str | ComponentSpec, options: Options, reasons: Reasons, **where: Any) -> Test:
    from ebsc_core.testing.suites import as_test, make_suite

    return as_test(make_suite(kind, part, options, **where), reasons)

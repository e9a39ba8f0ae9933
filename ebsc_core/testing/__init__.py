"""Check the contract of a plugin's component with one line in a test file.

::

    from ebsc_core.testing import objective_checks

    test_contract = objective_checks("my-loss")

This line makes a pytest test ``test_contract[...]`` for each check of an objective. ``ebsc plugins check
my-loss`` runs the same checks without pytest. ``docs/plugins/checks.md`` lists all checks with their
reasons.

All five functions take the registered name of the component, as a user would type it, or the
:class:`ebsc_core.ComponentSpec` that a hook would yield. They also take

``options``
    Options of the component that differ from their defaults. Small sizes make the checks fast.
``expected_failures``
    A mapping from the ids of checks that are known to fail to the reason, a sentence. If such a check
    passes, the test fails, so that the list stays correct.

A check is skipped if it has nothing to check (no parameters to train, no graph) or if a more basic check
has failed. The result says why.
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
    """Make a pytest test of the contract of a data set.

    Parameters
    ----------
    part : str or ComponentSpec
        The name of the component; with ``data``, the name of the family that opens it.
    data : str, Path or callable, optional
        What to open, for readers of a file type: ``dataset_checks("my-format", data="tests/few.xyz")``. A
        function is called when the first check runs.
    root : str or Path, optional
        The folder of named data sets; by default it is in the user's cache.
    options, expected_failures
        See :mod:`ebsc_core.testing`.
    """
    return _checks(Kind.DATA, part, options, expected_failures, data=data, root=root)


def backbone_checks(
    part: str | ComponentSpec, *, options: Options = None, expected_failures: Reasons = None
) -> Test:
    """Make a pytest test of the contract of a backbone; see :mod:`ebsc_core.testing` for the arguments."""
    return _checks(Kind.BACKBONE, part, options, expected_failures)


def objective_checks(
    part: str | ComponentSpec, *, options: Options = None, expected_failures: Reasons = None
) -> Test:
    """Make a pytest test of the contract of an objective; see :mod:`ebsc_core.testing` for arguments."""
    return _checks(Kind.OBJECTIVE, part, options, expected_failures)


def coefficient_model_checks(
    part: str | ComponentSpec, *, options: Options = None, expected_failures: Reasons = None
) -> Test:
    """Make a pytest test of a coefficient model's contract; see :mod:`ebsc_core.testing` for arguments."""
    return _checks(Kind.COEFFICIENTS, part, options, expected_failures)


def clusterer_checks(
    part: str | ComponentSpec, *, options: Options = None, expected_failures: Reasons = None
) -> Test:
    """Make a pytest test of the contract of a clusterer; see :mod:`ebsc_core.testing` for the arguments."""
    return _checks(Kind.CLUSTERER, part, options, expected_failures)


def _checks(kind: Kind, part: str | ComponentSpec, options: Options, reasons: Reasons, **where: Any) -> Test:
    from ebsc_core.testing.suites import as_test, make_suite

    return as_test(make_suite(kind, part, options, **where), reasons)

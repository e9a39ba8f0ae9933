"""The page ``docs/plugins/checks.md``; ``python -m ebsc_core.testing.reference > docs/plugins/checks.md``."""

from __future__ import annotations

from ebsc_core.plugins.kinds import REQUIRED, Kind
from ebsc_core.testing.suites import contract_of

HEAD = """\
# What a part must do, and how it is checked

Two lines of a test file check a part of yours, one pytest test for each row below:

    from ebsc_core.testing import objective_checks
    test_contract = objective_checks("my-loss")

`dataset_checks`, `backbone_checks`, `coefficient_model_checks` and `clusterer_checks` do the same for the
other kinds. `ebsc plugins check my-loss` runs the same checks without pytest.

- `options={"hidden": 16}`: options that are not to have their default values; small parts are checked faster.
- `expected_failures={"order-of-images": "its queue remembers the order"}`: known failures, each with its
  reason. One that passes after all fails the test.
- `dataset_checks("my-format", data="tests/few.xyz")`: what a reader of a file type is to open; `root=` says
  where named data sets are kept.
- A part that is not registered is given as its record:
  `objective_checks(ComponentSpec("my-loss", "…", MyLoss))`.

Checks marked • are basic: where one fails, those after it are skipped. A check that has nothing to look at
(no parameters to train, no graph) is skipped, too, and says why. Devices are those of the machine: a GPU is
tried where there is one. Memory is measured by counting what torch's operations and NumPy allocate, at three
sizes whose constant and linear parts cancel out (`ebsc_core/testing/memory.py`).

This page is written by `python -m ebsc_core.testing.reference`; a test compares the two.
"""


def markdown() -> str:
    """The page."""
    return HEAD + "".join(_table(kind) for kind in REQUIRED)


def _table(kind: Kind) -> str:
    lines = [f"\n## {kind.words.capitalize()}s\n", "| check | contract | why |", "|---|---|---|"]
    for check in contract_of(kind).checks:
        mark = " •" if check.basic else ""
        cells = (text.replace("|", "\\|") for text in (check.contract, check.why))
        lines.append(f"| `{check.id}`{mark} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")

"""Write the page ``docs/plugins/checks.md``.

Run ``python -m ebsc_core.testing.reference > docs/plugins/checks.md``.
"""

from __future__ import annotations

from ebsc_core.plugins.kinds import REQUIRED, Kind
from ebsc_core.testing.suites import contract_of

HEAD = """\
# What a component must do, and how it is checked

Two lines in a test file check your component, with one pytest test for each row below:

    from ebsc_core.testing import objective_checks
    test_contract = objective_checks("my-loss")

`dataset_checks`, `backbone_checks`, `coefficient_model_checks` and `clusterer_checks` do the same for the
other kinds. `ebsc plugins check my-loss` runs the same checks without pytest.

- `options={"hidden": 16}`: options that differ from their defaults. Checks of small components are faster.
- `expected_failures={"order-of-images": "its queue remembers the order"}`: known failures, each with its
  reason. If such a check passes, the test fails.
- `dataset_checks("my-format", data="tests/few.xyz")`: the file that a reader of a file type opens. `root=` is
  the folder of named data sets.
- A component that is not registered is passed as its record:
  `objective_checks(ComponentSpec("my-loss", "…", MyLoss))`.

Checks marked • are basic: if one fails, the later checks are skipped. A check that has nothing to check
(no parameters to train, no graph) is also skipped, and says why. The checks use the devices of the machine,
including a GPU if there is one. They measure memory by counting what torch's operations and NumPy allocate,
at three sizes whose constant and linear parts cancel out (`ebsc_core/testing/memory.py`).

`python -m ebsc_core.testing.reference > docs/plugins/checks.md` writes this page; a test compares the two.
"""


def markdown() -> str:
    """Return the text of the page."""
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

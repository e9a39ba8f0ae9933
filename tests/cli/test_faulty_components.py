"""Components of others that go wrong in a run: a line says which, and nothing passes for a result."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.plugin_sources import HEAD

RUN = ("run", "--data", "digits", "--limit", "40", "--epochs", "0", "--n-clusters", "3", "--no-report")
PIXELS = ("--backbone", "identity")

Install = Callable[[str, str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution ``acme`` with one component ``x``: of a hook, by the source of its class."""

    def write(hook: str, base: str, body: str) -> None:
        site = tmp_path / "site"
        info = site / "acme-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[ebsc]\nacme = acme_parts\n")
        (site / "acme_parts.py").write_text(
            f"{HEAD}import numpy as np\nimport torch\nimport ebsc_core\n"
            f"class X({base}):\n{body}"
            f"@hookimpl\ndef {hook}():\n    yield ComponentSpec('x', 'For a test.', X)\n"
        )
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, "acme_parts", raising=False)

    return write


def clusterer(fit_predict: str) -> tuple[str, str, str]:
    body = (
        "    consumes = 'features'\n"
        "    def __init__(self, options, n_clusters, seed): pass\n"
        f"    def fit_predict(self, data):\n        {fit_predict}\n"
    )
    return "ebsc_clusterers", "ebsc_core.Clusterer", body


@pytest.mark.parametrize("status", ["0", "3", ""])
def test_a_component_that_ends_the_program_is_an_error(
    ebsc, install: Install, tmp_path: Path, status: str
) -> None:
    install(*clusterer(f"raise SystemExit({status})"))
    done = ebsc(*RUN, *PIXELS, "--clusterer", "x", "--out", "out")
    assert done.code == 2
    assert "error: a component ended the program (SystemExit" in done.err
    assert "acme_parts.py, line 9); it must return" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "attribute",
    [
        "embedding_ = np.full((len(data), 2), np.nan)",
        "embedding_ = np.full((len(data), 2), 'a')",
        "eigenvalues_ = np.full(5, np.nan)",
        "eigenvalues_ = ['a'] * 5",
        "eigenvalues_ = 0.5",
        "eigenvalues_ = np.ones((5, 5))",
    ],
)
def test_what_a_clusterer_says_of_the_graph_is_finite(
    ebsc, install: Install, tmp_path: Path, attribute: str
) -> None:
    install(*clusterer(f"self.{attribute}; return np.arange(len(data)) % 3"))
    done = ebsc(*RUN, *PIXELS, "--clusterer", "x", "--out", "out")
    name = attribute.partition(" ")[0]
    assert done.err.endswith(f"clusterer 'x' of acme 1.0: its {name} must be finite numbers\n")
    assert done.code == 2
    assert not (tmp_path / "out").exists()


def test_an_error_in_its_code_names_it(ebsc, install: Install) -> None:
    install(*clusterer("raise KeyError('no luck')"))
    with pytest.raises(KeyError, match="no luck") as caught:
        ebsc(*RUN, *PIXELS, "--clusterer", "x", "--out", "out")
    (note,) = caught.value.__notes__
    assert note.startswith("it was raised in clusterer 'x' of acme 1.0 (")
    assert note.endswith("acme_parts.py, line 9); `ebsc plugins check` tests components")


def test_an_error_in_other_code_does_not(ebsc, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(*clusterer("return np.arange(len(data)) % 3"))

    def fail(*arguments: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr("ebsc_core.runs.run.write_run", fail)
    with pytest.raises(KeyError, match="ours") as caught:
        ebsc(*RUN, *PIXELS, "--clusterer", "x", "--out", "out")
    assert not getattr(caught.value, "__notes__", [])

"""The pages on Python, run as a reader would: every block, in its order, in an empty folder."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ebsc_core.estimators.images
import ebsc_core.estimators.rows

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "docs" / name for name in ("python.md", "tutorial.md")]
DOCUMENTED = [ebsc_core.estimators.images.EBSC, ebsc_core.estimators.rows.EnergySubspaceClustering]

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path) -> list[tuple[str, str, int]]:
    """Language, text and line of every block."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [(match[1], match[2], text[: match.start()].count("\n") + 1) for match in found]


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow if page.stem == "tutorial" else ()) for page in PAGES],
    ids=lambda page: page.name,
)
def test_every_block_runs(ebsc: Callable[..., Any], page: Path) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for language, text, line in blocks(page):
        if language == "python":
            # Counted from the top of the page, so that an error says where it is.
            exec(compile("\n" * line + text, page, "exec"), names)
        else:
            assert language == "sh", f"{page.name}:{line}"
            for command in text.replace("\\\n", " ").splitlines():
                program, *words = shlex.split(command, comments=True)
                assert program == "ebsc"
                done = ebsc(*words)
                assert done.code == 0, f"{command}: {done.err}"


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", page.read_text())
    assert links
    assert not {link for link in links if not (page.parent / link).exists()}


@pytest.mark.parametrize("documented", DOCUMENTED, ids=lambda documented: documented.__name__)
def test_every_parameter_is_documented_and_the_example_runs(documented: type) -> None:
    text = documented.__doc__ or ""
    parameters = text.partition("Parameters\n")[2].partition("Attributes\n")[0]
    named = re.findall(r"^    (\w+) : .*default=", parameters, flags=re.MULTILINE)
    assert sorted(named) == sorted(documented().get_params())
    lines = re.findall(r">>> (.*)", text)
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    model = names["model"]
    attributes = re.findall(r"^    (\w+_) : ", text, flags=re.MULTILINE)
    missing = [name for name in attributes if not hasattr(model, name)]
    assert missing in ([], ["feature_names_in_"])
    assert len(names["later"]) == 297

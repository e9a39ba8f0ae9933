"""What docs/plugins says of the interfaces, held to the interfaces; and that its links lead somewhere."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebsc_core.clustering.inner_product import InnerProductModel
from ebsc_core.data.images.source import ImageSource
from ebsc_core.plugins import interfaces

DOCS = Path(__file__).resolve().parents[1] / "docs" / "plugins"
PAGES: dict[str, list[type]] = {
    "dataset.md": [ImageSource],
    "backbone.md": [interfaces.Backbone],
    "objective.md": [interfaces.Objective],
    "coefficient-model.md": [
        interfaces.CoefficientModel,
        InnerProductModel,
        interfaces.TrainableCoefficientModel,
    ],
    "clusterer.md": [interfaces.Clusterer],
}
classes = [(page, cls) for page, found in PAGES.items() for cls in found]


def signatures(cls: type) -> Iterator[str]:
    """``name(self, …) -> …`` of everything public that the class itself declares."""
    for name, member in vars(cls).items():
        function = member.fget if isinstance(member, property) else member
        if inspect.isfunction(function) and (not name.startswith("_") or name == "__len__"):
            yield f"{name}{inspect.signature(function)}".replace("'", "")


@pytest.mark.parametrize(("page", "cls"), classes, ids=lambda value: getattr(value, "__name__", value))
def test_a_page_shows_the_true_signatures(page: str, cls: type) -> None:
    text = (DOCS / page).read_text()
    block = re.search(rf"^class {cls.__name__}\b.*?^```", text, re.MULTILINE | re.DOTALL)
    assert block, f"{page} does not show {cls.__name__}"
    shown = set(re.findall(r"^    def (.*?)(?:  +#.*)?$", block[0], re.MULTILINE))
    assert shown == set(signatures(cls))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_which_are_to_be_written(page: str) -> None:
    text = (DOCS / page).read_text()
    for cls in PAGES[page]:
        block = re.search(rf"^class {cls.__name__}\b.*?(?=# ha|^```)", text, re.MULTILINE | re.DOTALL)
        assert block
        asked = {name for name in cls.__abstractmethods__ if name in vars(cls)}  # type: ignore[attr-defined]
        assert set(re.findall(r"def (\w+)", block[0])) == asked


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", page.read_text())
    missing = {link for link in links if not (page.parent / link).exists()}
    assert not missing

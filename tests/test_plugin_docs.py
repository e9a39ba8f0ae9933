"""What docs/plugins says of the interfaces, held to the interfaces; and that its links lead somewhere."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


def test_the_first_example_keeps_its_contract(
    ebsc: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / "README.md").read_text(), flags=re.DOTALL)
    site = tmp_path / "site"
    info = site / "my_loss-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-loss\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ebsc]\nmy-loss = loss_of_the_docs\n")
    record = "ComponentSpec('my-loss', 'A loss.', MyLoss)"
    hook = f"@hookimpl\ndef ebsc_objectives():\n    yield {record}\n"
    source = f"{example}\nfrom ebsc_core import ComponentSpec, hookimpl\n{hook}"
    (site / "loss_of_the_docs.py").write_text(source)
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "loss_of_the_docs", raising=False)
    done = ebsc("plugins", "check", "my-loss")
    assert done.code == 0, done.out + done.err


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", page.read_text())
    missing = {link for link in links if not (page.parent / link).exists()}
    assert not missing

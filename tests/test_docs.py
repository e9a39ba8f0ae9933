"""Links between all pages, those outside the site included, and the two commands in the README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(ROOT.glob("*.md")),
    ROOT / "benchmarks" / "README.md",
    ROOT / "examples" / "plugins" / "README.md",
]


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8")):
        target = page.parent / link if link else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), f"{link}#{anchor}"


def test_every_page_is_in_the_navigation() -> None:
    docs = ROOT / "docs"
    trees = re.findall(
        r"^```\{toctree\}\n(.*?)^```", (docs / "index.md").read_text(), re.MULTILINE | re.DOTALL
    )
    listed = {line for tree in trees for line in tree.split() if not line.startswith(":")}
    pages = {str(page.relative_to(docs).with_suffix("")) for page in docs.rglob("*.md")}
    assert pages - {"index"} <= listed


def test_the_readme_begins_with_the_run_and_the_tests() -> None:
    first, second, *_ = re.findall(
        r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert "ebsc run" in first
    assert "pytest" in second
    assert second.count("\n") == 1  # .ci/run takes the first line

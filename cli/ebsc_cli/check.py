"""Implement ``ebsc plugins check``: check a component against the contract of its kind."""

from __future__ import annotations

import json
import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from ebsc_cli.flags import OPTION, DataRoot
from ebsc_cli.tables import plain_console
from ebsc_core.plugins.kinds import REQUIRED, Kind
from ebsc_core.plugins.registry import Registry, UnknownComponentError

if TYPE_CHECKING:
    from ebsc_core.testing.checks import Result

MARKS = {"passed": ("✓", "green"), "failed": ("✗", "red"), "not run": ("–", "dim")}
KindName = Enum("KindName", {kind.section: kind.section for kind in REQUIRED})  # type: ignore[misc]


def check(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The name of a component, e.g. simclr, or the path of data.")
    ],
    kind: Annotated[
        KindName | None,
        OPTION(
            "--kind",
            metavar="KIND",
            help="The kind, if several kinds use this name: data, backbone, objective, coefficients or "
            "clusterer. \\[default: all]",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        OPTION(
            "--set", metavar="SECTION.OPTION=VALUE", help="Change an option of the component; repeatable."
        ),
    ] = None,
    data_root: DataRoot = None,
    as_json: Annotated[bool, OPTION("--json", help="Print one JSON object per line instead.")] = False,
) -> None:
    """Check that a component keeps the contract of its kind; exit with status 1 if it does not."""
    # Import this here, so that help does not wait for pydantic.
    from ebsc_core.config.loading import check_sections, parse_settings

    kinds = [one for one in REQUIRED if kind is None or one.section == kind.value]
    registry = Registry()
    kinds_found = [one for one in kinds if _answers(registry, one, name)]
    if not kinds_found and _answers(registry, Kind.OBSERVER, name):
        raise UnknownComponentError(
            f"{name!r} is an observer, and there are no checks for observers; test it by a small run, as "
            "the package of `ebsc plugins new observer` does"
        )
    if not kinds_found:
        raise UnknownComponentError(f"no component is called {name!r}: {registry.hint(name, kinds)}")
    tree = parse_settings(settings or [])
    check_sections(tree, [one.section for one in kinds_found])
    # Import this here, so that a wrong name is reported without waiting for torch.
    from ebsc_core.testing.suites import make_suite

    root = Path(os.path.expanduser(data_root)) if data_root else None
    console = plain_console()
    failed = 0
    for one in kinds_found:
        suite = make_suite(one, name, tree.get(one.section), root=root)
        if not as_json:
            console.print(Text.assemble((name, "bold"), f" ({one.words})"))
        for result in suite.results():
            failed += result.status == "failed"
            _print(console, result, one, as_json)
    if failed:
        if not as_json:
            console.print(f"{failed} failed")
        raise typer.Exit(1)


def _answers(registry: Registry, kind: Kind, name: str) -> bool:
    try:
        registry.find(kind, name)
    except UnknownComponentError:
        return False
    return True


def _print(console: Console, result: Result, kind: Kind, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_record(result, kind)), flush=True)
        return
    detail = f": {result.seen}" if result.seen else ""
    console.print(Text.assemble(MARKS[result.status], f" {result.check.id}{detail}"))
    if result.status == "failed":
        console.print(f"    contract: {result.check.contract}")
        console.print(f"    why: {result.check.why}")


def _record(result: Result, kind: Kind) -> dict[str, Any]:
    return {
        "kind": kind.section,
        "check": result.check.id,
        "status": result.status,
        "seen": result.seen,
        "contract": result.check.contract,
        "why": result.check.why,
    }

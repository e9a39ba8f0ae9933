"""Implement ``ebsc doctor``: examine this machine and try a small run, or verify runs."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from ebsc_cli.flags import in_flags
from ebsc_cli.tables import plain_console
from ebsc_core.utils.errors import printable

MARKS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "failed": ("✗", "red")}


def doctor(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN ...]", help="Run directories to verify, in place of the machine."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check packages, plugins, devices and disks, and do a small run; exit with status 1 on failure.

    With the directories of runs, check instead that each of their files is the one that was written.
    """
    # Import this here, so that `ebsc --help` does not wait for it.
    from ebsc_core.runs.doctor import FAILED, examine

    console = plain_console()
    findings = []
    topic = ""
    for found in examine(runs or ()):
        finding = replace(found, text=in_flags(found.text))
        findings.append(finding)
        if as_json:
            continue
        if finding.topic != topic:
            topic = finding.topic
            console.print(Text(printable(topic), "bold"))
        console.print(Text.assemble("  ", MARKS[finding.status], f" {printable(finding.text)}"))
    failed = sum(finding.status == FAILED for finding in findings)
    if as_json:
        record = {"ok": not failed, "findings": [asdict(finding) for finding in findings]}
        print(json.dumps(record, indent=2))
    else:
        console.print(Text(f"{failed} failed", "red") if failed else Text("all is well", "green"))
    if failed:
        raise typer.Exit(1)

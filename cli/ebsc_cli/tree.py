"""Implement ``ebsc tree``: show which clusters of a run belong together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from ebsc_cli.tables import table_console


def tree(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a finished run.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: a list of nodes, the root last.")
    ] = False,
) -> None:
    """Show the clusters as a tree: those that are joined first share most affinity.

    Each line has the number of images. A join also has the affinity, in percent, at which its two parts are
    joined. `ebsc merge` joins clusters for good.
    """
    from ebsc_core.curation.tree import cluster_tree
    from ebsc_core.runs.store.saved import SavedRun

    found = cluster_tree(SavedRun(run))
    if as_json:
        print(json.dumps(found.record(), indent=2))
        return
    console = table_console()
    for lead, node in found.lines():
        style = "dim" if node.cluster is None else "bold"
        console.print(Text.assemble(lead, (str(node), style)), soft_wrap=True)

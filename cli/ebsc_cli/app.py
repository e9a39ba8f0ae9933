"""The ``ebsc`` command and its subcommands."""

from __future__ import annotations

import sys

import typer

from ebsc_cli import plugins
from ebsc_cli.run import run
from ebsc_core.errors import EbscError

app = typer.Typer(
    name="ebsc",
    help="Deep subspace clustering from exchangeable parts: images in, clusters out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command()(run)
app.add_typer(plugins.app, name="plugins")


def main() -> None:
    """Entry point: a user's mistake is one line on standard error and exit status 2."""
    try:
        app()
    except EbscError as error:
        print(f"ebsc: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("ebsc: interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)

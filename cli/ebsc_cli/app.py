"""The ``ebsc`` command and its subcommands."""

from __future__ import annotations

import sys
from typing import Any

import typer

from ebsc_cli import plugins
from ebsc_cli.benchmark import benchmark
from ebsc_cli.run import run
from ebsc_core.errors import EbscError, Interrupted

# Typer's or Click's, by the version of Typer.
UsageError: type[Any] = typer.BadParameter.__base__  # type: ignore[assignment]
# What Typer makes of a KeyboardInterrupt.
INTERRUPTED = 130

app = typer.Typer(
    name="ebsc",
    help="Deep subspace clustering from exchangeable parts: images in, clusters out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command()(run)
app.command()(benchmark)
app.add_typer(plugins.app, name="plugins")


def main() -> None:
    """Entry point: a user's mistake is one line on standard error and exit status 2."""
    try:
        status = app(standalone_mode=False)
    except Interrupted as error:
        print(f"ebsc: {error}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except EbscError as error:
        sys.exit(_complain(str(error)))
    except UsageError as error:
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError" and context:
            print(context.get_help())
            sys.exit(2)
        command = context.command_path if context else "ebsc"
        sys.exit(_complain(f"{error.format_message()} (see `{command} --help`)"))
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    if status == INTERRUPTED:
        print("ebsc: interrupted; nothing was written", file=sys.stderr)
    sys.exit(status)


def _complain(message: str) -> int:
    print(f"ebsc: error: {' '.join(message.split())}", file=sys.stderr)
    return 2

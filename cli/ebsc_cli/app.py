"""Define the ``ebsc`` command and its subcommands."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from typing import Annotated, Any

import typer

from ebsc_cli.commands import COMMANDS, Group
from ebsc_cli.help import with_plain_default
from ebsc_cli.process import complain, end_with_launcher, is_first, is_one_of_several, leave
from ebsc_cli.version import show_version
from ebsc_core.utils.errors import EbscError, Interrupted, advice, is_out_of_memory, text_of
from ebsc_core.utils.signals import exit_status, listen

# The class comes from Typer or from Click: this depends on the version of Typer.
UsageError: type[Any] = typer.BadParameter.__base__  # type: ignore[assignment]
# Typer turns a KeyboardInterrupt, which every signal raises, into this exit status.
INTERRUPTED = 130

app = typer.Typer(
    name="ebsc",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=COMMANDS["run"].example,
)
# These flags apply to the whole command, wherever they stand on the command line.
EVERYWHERE = ("--no-plugins", "--traceback")
# A path or the machine causes these errors, wherever they appear.
OF_PATHS = {errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC}
OF_PATHS |= {errno.EFBIG, errno.EDQUOT, errno.EIO} if hasattr(errno, "EDQUOT") else {errno.EFBIG, errno.EIO}

# So many characters of an error of other software are shown; some of them go on with a stack of C++ calls.
SHOWN = 200
NO_MEMORY = (
    "not enough memory; end other programs, raise the limit (ulimit -v, ulimit -u, or that of the queue), or "
    "lower `dictionary_size`, `train.batch_size` or the number of threads (OMP_NUM_THREADS)"
)


@app.callback()
def everywhere(
    context: typer.Context,
    no_plugins: Annotated[
        bool, typer.Option("--no-plugins", help="Use only the components that come with ebsc.")
    ] = False,
    with_traceback: Annotated[
        bool, typer.Option("--traceback", help="Also show where in the code an error occurred.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=show_version, is_eager=True, help="Show the installed versions and exit."
        ),
    ] = False,
) -> None:
    """Cluster images by deep subspace clustering. Every component can be exchanged."""
    if no_plugins:  # set in the environment, so that child processes see it too
        from ebsc_core.plugins.installed import ALL_OTHERS, DISABLED

        before = os.environ.get(DISABLED)
        os.environ[DISABLED] = ALL_OTHERS
        context.call_on_close(lambda: _restore(DISABLED, before))


def _restore(variable: str, value: str | None) -> None:
    if value is None:
        del os.environ[variable]
    else:
        os.environ[variable] = value


def command() -> Any:
    """Return the command with all its options; it loads its subcommands when they are called."""
    made = typer.main.get_command(app)
    for option in made.params:
        if option.name in ("install_completion", "show_completion"):
            with_plain_default(option)
    return made


def _complain_in_flags(*parts: str) -> None:
    from ebsc_cli.flags import in_flags  # help does not wait for it

    complain(in_flags("; ".join(parts)))


def _usage_message(error: Any, words: list[str]) -> str:
    """Return what is wrong with the command line, with the option that was probably meant."""
    if type(error).__name__ != "NoSuchOption":
        return error.format_message()
    from ebsc_cli.nearest import unknown_option

    return unknown_option(error, words)


def main() -> None:
    """Run the command line; report a user's mistake in one line of standard error, with exit status 2."""
    # Threads that spin while they wait lose half of their speed (at times more) on a machine that does
    # other work, and gain nothing elsewhere. OpenMP reads this variable when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        # File names need not be UTF-8, and some terminals cannot show every character.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    listen()
    end_with_launcher()
    given = sys.argv[1:]
    words = sorted(given, key=lambda word: word not in EVERYWHERE)  # a stable order
    try:
        status = command()(words, prog_name="ebsc", standalone_mode=False)
    except Interrupted as error:
        _complain_in_flags(str(error), *advice(error))
        leave(exit_status())
    except EbscError as error:
        if "--traceback" in given:
            traceback.print_exception(error)
        _complain_in_flags(f"error: {error}", *advice(error))
        leave(2)
    except UsageError as error:
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError" and context:
            print(context.get_help())
            sys.exit(2)
        path = context.command_path if context else "ebsc"
        complain(f"error: {_usage_message(error, given)} (see `{path} --help`)")
        leave(2)
    except (KeyboardInterrupt, typer.Abort) as error:
        # Typer treats an EOFError as Ctrl-D, but no command here asks for input.
        if isinstance(error.__cause__, EOFError):
            raise error.__cause__ from None
        status = INTERRUPTED
    except Exception as error:
        if isinstance(error, OSError) and error.errno in OF_PATHS and "--traceback" not in given:
            what = ": ".join(str(part) for part in (error.strerror, error.filename) if part is not None)
            mend = "choose another path, free disk space or change the permissions"
            _complain_in_flags(f"error: {what}; {mend}", *advice(error))
            leave(2)
        if is_out_of_memory(error) and "--traceback" not in given:
            shown = (text_of(error) or type(error).__name__)[:SHOWN]
            _complain_in_flags(f"error: {NO_MEMORY} ({shown})", *advice(error))
            leave(2)
        if not is_one_of_several():
            raise
        traceback.print_exc()
        leave(1)
    if status == INTERRUPTED and is_first():
        complain("interrupted")
    leave(exit_status() if status == INTERRUPTED else status)

"""Say in whose code an error was raised, and keep components from ending the program."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from traceback import walk_tb

from ebsc_core.plugins.installed import OWN_DISTRIBUTION, installed_entry_points
from ebsc_core.utils.errors import ComponentError, EbscError, is_out_of_memory, told

RAISED_IN = "it was raised in "


def installed_packages() -> dict[str, str]:
    """Return the top-level packages of the plugins of others, and how messages call these; import nothing."""
    found: dict[str, list[str]] = {}
    for entry_point, provider in installed_entry_points():
        if provider.distribution != OWN_DISTRIBUTION:
            package = entry_point.value.partition(":")[0].partition(".")[0].strip()
            found.setdefault(package, []).append(f"plugin {entry_point.name!r} of {provider}")
    return {package: " or ".join(plugins) for package, plugins in found.items()}


def origin(error: BaseException, packages: Mapping[str, str] | None = None) -> str:
    """Return whose code raised an error, and in which line; ``""`` if none of these packages did.

    Parameters
    ----------
    packages : mapping, optional
        Top-level packages, and what to call them; by default those of all installed plugins of others.
    """
    names = installed_packages() if packages is None else packages
    for frame, line in reversed(list(walk_tb(error.__traceback__))):
        if named := names.get(str(frame.f_globals.get("__name__", "")).partition(".")[0]):
            return f"{named} ({frame.f_code.co_filename}, line {line})"
    return ""


@contextmanager
def guarded(
    packages: Callable[[], Mapping[str, str]] = installed_packages, may_end: str = ""
) -> Iterator[None]:
    """Name the plugin in whose code an error was raised, by a note on the error.

    Parameters
    ----------
    packages : callable
        Returns the packages of plugins, as :func:`origin` takes them.
    may_end : str
        The package that may end the program, e.g. with the status of processes that it has started.

    Raises
    ------
    ComponentError
        If a component wants to end the program.
    """
    try:
        yield
    except SystemExit as error:  # its status may be 0, as if there were a result
        if _is_wanted(error, may_end):
            raise
        at = traceback.extract_tb(error.__traceback__)[-1]
        raise ComponentError(
            f"a component ended the program ({told(error)} in {at.filename}, line {at.lineno}); "
            "it must return a result or raise an error"
        ) from error
    except EbscError:
        raise
    except Exception as error:
        # Such an error is shown with all calls, or looks like one of the user's files: say whom to tell.
        named = any(note.startswith(RAISED_IN) for note in getattr(error, "__notes__", []))
        if not named and not is_out_of_memory(error) and (where := origin(error, packages())):
            error.add_note(f"{RAISED_IN}{where}; `ebsc plugins check` tests components")
        raise


def _is_wanted(error: SystemExit, may_end: str) -> bool:
    """Tell whether this package has raised it, or Rich has because nobody reads its output (``| head``)."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return package == may_end or isinstance(error.__context__, BrokenPipeError)

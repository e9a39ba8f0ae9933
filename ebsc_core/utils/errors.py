"""Define the errors that users see."""

import errno
from collections.abc import Sequence

# Characters of a user's own text in a message.
QUOTED = 200
# How PyTorch, its libraries and the loader of shared libraries say that there is no memory, or no thread.
NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "cannot allocate memory",
    "out of memory",
    "could not create a primitive",
    "could not create a memory object",
    "std::bad_alloc",
    "can't start new thread",
    "failed to map segment",
)
# oneDNN says this of factors whose shapes do not fit; the text begins like that of a lack of memory.
MISMATCH = "could not create a primitive descriptor"


# The note on an interrupt that leaves things as they were.
NOTHING_WRITTEN = "nothing was written"


class EbscError(Exception):
    """Report a mistake that the user can correct.

    The text is one line. It says what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with status 2.
    """


class ComponentError(EbscError):
    """Report that a component cannot be found, loaded or configured."""


# Plugins may import it by its first name.
PartError = ComponentError


class ConfigError(EbscError):
    """Report a setting that is unknown, has the wrong type or contradicts another."""


class DataError(EbscError):
    """Report images, labels or features that cannot be used."""


class DeviceError(EbscError):
    """Report that the requested device or precision is not available."""


class RunDirectoryError(EbscError):
    """Report a path that cannot hold a run, or a damaged run directory."""


class PackageError(EbscError):
    """Report that the package of a new plugin cannot be written as requested."""


class TrainingError(EbscError):
    """Report that training cannot continue, for instance because the loss is not finite."""


class Interrupted(EbscError):
    """Report that the user stopped the run; the text says what is kept."""


def missing_package(part: str, package: str, extra: str, error: ImportError) -> ComponentError:
    """Return the error for a component whose package is missing; an extra of ebsc installs the package.

    ``part`` names the component, e.g. ``backbone 'scattering'``.
    """
    return ComponentError(
        f"{part} needs {package}, which cannot be imported ({text_of(error)}); "
        f"install it with: pip install 'ebsc[{extra}]'"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the host or a device ran out of memory or threads; many say so only in their message."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno in (errno.ENOMEM, errno.EAGAIN)
    text = str(error).lower()
    if isinstance(error, SystemError):  # C code that got no memory, within an import for instance
        return "without exception set" in text
    text = text.replace(MISMATCH, "")
    return isinstance(error, RuntimeError | ImportError) and any(message in text for message in NO_MEMORY)


def advice(error: BaseException) -> list[str]:
    """Return the notes of an error and of its cause; a note says, for instance, how to continue."""
    both = (error, error.__cause__)
    return [note for raised in both for note in getattr(raised, "__notes__", [])]


def told(error: BaseException) -> str:
    """Return the type and text of any error, also of one raised by other software."""
    kind, text = type(error).__name__, text_of(error)
    return kind if text == kind else f"{kind}: {text}"


def text_of(error: BaseException) -> str:
    """Return the text of an error on one line that any terminal can show; its type if it has no text."""
    try:
        text = str(error)
    except Exception:  # other software may define __str__ badly
        return "(its text cannot be read)"
    return printable(text) or type(error).__name__


def fault_of(error: BaseException) -> str:
    """Return what an error says about a file that cannot be read, on one line.

    Raises
    ------
    BaseException
        The error itself if memory was short: then nothing is wrong with the file.
    """
    if is_out_of_memory(error):
        raise error
    return text_of(error)


def printable(text: str) -> str:
    """Return the text on one line that any terminal can show."""
    return " ".join(printable_lines(text).split())


def printable_lines(text: str) -> str:
    """Return the text with a blank for each character that a terminal cannot show; its lines stay."""
    return "".join(c if c.isprintable() or c in "\n\u00a0" else " " for c in text)  # no-break blanks stay


def shortened(text: str) -> str:
    """Return a text of a user's file as a message can quote it: on one line, and not too long."""
    line = printable(text[: 2 * QUOTED])
    return line if len(line) <= QUOTED else f"{line[:QUOTED]} …"


def first_of(items: Sequence[object], most: int) -> str:
    """Return the first ``most`` items in a line, with dots if there are more."""
    return ", ".join(map(str, items[:most])) + (", …" if len(items) > most else "")

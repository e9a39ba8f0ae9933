"""Errors meant for the person at the keyboard."""


class EbscError(Exception):
    """A mistake the user can mend. Its text is one line: what, where, and what to do.

    The command line prints it without a traceback and exits with status 2.
    """


class ComponentError(EbscError):
    """A component cannot be found, loaded or configured."""


# Plugins may have it by its first name.
PartError = ComponentError


class ConfigError(EbscError):
    """A setting is unknown, ill-typed or contradicts another."""


class DataError(EbscError):
    """The images, labels or features given cannot be used."""


class DeviceError(EbscError):
    """The device or precision asked for is not there."""


class RunDirectoryError(EbscError):
    """The output path cannot hold a run."""


class PackageError(EbscError):
    """A package for a part of one's own cannot be written as asked."""


class TrainingError(EbscError):
    """Training cannot go on, for instance because the loss is not finite."""


class Interrupted(EbscError):
    """The user stopped it; its text says what is kept."""


def missing_package(part: str, package: str, extra: str, error: ImportError) -> ComponentError:
    """What to say of a part, such as ``backbone 'scattering'``, whose package an extra of ours installs."""
    return ComponentError(
        f"{part} needs {package}, which cannot be imported ({text_of(error)}); "
        f"install it with: pip install 'ebsc[{extra}]'"
    )


def advice(error: BaseException) -> list[str]:
    """What is noted on an error or on what has led to it: how to go on, for instance."""
    both = (error, error.__cause__)
    return [note for raised in both for note in getattr(raised, "__notes__", [])]


def told(error: BaseException) -> str:
    """Kind and text of an error that may be a stranger's."""
    return f"{type(error).__name__}: {text_of(error)}"


def text_of(error: BaseException) -> str:
    """Its text on one line that any terminal can show."""
    try:
        text = str(error)
    except Exception:  # a stranger's
        return "(its text cannot be read)"
    return printable(text)


def printable(text: str) -> str:
    """On one line that any terminal can show."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())

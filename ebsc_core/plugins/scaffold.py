"""Write a new package with one working component, for ``ebsc plugins new``.

The files come from the folder ``templates``; every kind also gets those of ``templates/package``.
Placeholders such as ``$name`` are filled in (``string.Template``).
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from string import Template

from ebsc_core.plugins.installed import OWN_DISTRIBUTION
from ebsc_core.plugins.kinds import REQUIRED, Kind
from ebsc_core.plugins.registry import Registry
from ebsc_core.utils.errors import PackageError, printable
from ebsc_core.utils.files import folder_written_whole

# Each file of the new package, and the template that it is made from.
FILES = {
    "pyproject.toml": "package/pyproject.toml",
    "README.md": "package/README.md",
    ".gitignore": "package/gitignore",
    "tests/test_$package.py": "$test/test.py",
    "$package/__init__.py": "$section/__init__.py",
    "$package/$section.py": "$section/part.py",
}
# The kinds by the words of the command line; a run has many observers, and a package has one.
KINDS = {kind.section: kind for kind in REQUIRED} | {"observer": Kind.OBSERVER}
LICENSE = "MIT"
LONGEST = 100
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
EMAIL = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+")
TEMPLATES = files("ebsc_core.plugins") / "templates"


@dataclass(frozen=True)
class Author:
    """Name the author of a package."""

    name: str
    email: str

    def toml(self) -> str:
        """Return an entry of ``authors`` in ``pyproject.toml``."""
        values = {"name": self.name} | ({"email": self.email} if EMAIL.fullmatch(self.email) else {})
        return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in values.items()) + " }"


UNKNOWN = Author("Your Name", "you@example.com")


def author() -> Author:
    """Return the author that git knows here, or a placeholder."""
    name = _git("user.name")
    return Author(name, _git("user.email")) if name else UNKNOWN


def _git(setting: str) -> str:
    try:
        done = subprocess.run(
            ["git", "config", setting],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):  # git is not installed
        return ""
    return printable(done.stdout)


def write_package(
    section: str, name: str, folder: Path | None, registry: Registry, by: Author = UNKNOWN
) -> Path:
    """Write the package ``ebsc-<name>`` with one component; return its folder.

    If anything fails, nothing is left behind.

    Parameters
    ----------
    section : str
        The kind of component, as the command line and the configuration call it.
    folder : Path, optional
        The new folder. None means ``ebsc-<name>`` in the current folder.
    by : Author
        The author in its ``pyproject.toml``.

    Raises
    ------
    PackageError
        If there is no such kind, if the name is invalid or a component has it already, or if the folder
        exists or cannot be written.
    """
    kind = _kind(section)
    _check_name(kind, name, registry)
    contents = package_files(kind, name, by)
    folder = Path(os.path.expanduser(folder or f"ebsc-{name}"))
    try:
        if folder.exists() or folder.is_symlink():
            raise PackageError(f"{folder} exists already; name another folder with `into`")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder_written_whole(folder) as temporary_folder:
            for file, text in contents.items():
                (temporary_folder / file).parent.mkdir(exist_ok=True)
                (temporary_folder / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise PackageError(
            f"cannot write {folder}: {error.strerror or error}; name another folder with `into`"
        ) from None
    return folder


def package_files(kind: Kind, name: str, by: Author = UNKNOWN) -> dict[str, str]:
    """Return the files of the package: their texts by path."""
    hook = kind.hook.removeprefix("ebsc_").removesuffix("s")
    observes = kind is Kind.OBSERVER
    words = {
        "name": name,
        "section": _word(kind),
        "words": kind.words,
        "page": "observers" if observes else kind.words.replace(" ", "-").replace("data-set", "dataset"),
        # There are no contract checks for observers, so these have a test of their own.
        "test": _word(kind) if observes else "package",
        "tested": "a small run tells the observer" if observes else "one line checks the contract",
        "license": LICENSE,
        "authors": by.toml(),
        "checks": f"{hook}_checks",
        "distribution": f"ebsc-{name}",
        "package": _package(name),
        "class_name": _class_name(name),
        "version": version(OWN_DISTRIBUTION),
    }

    def filled(text: str) -> str:
        return Template(text).substitute(words)

    return {
        filled(file): filled((TEMPLATES / f"{filled(template)}.template").read_text(encoding="utf-8"))
        for file, template in FILES.items()
    }


def _kind(section: str) -> Kind:
    if section not in KINDS:
        near = get_close_matches(section, KINDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(KINDS)}"
        raise PackageError(f"there is no kind of component {section!r}: {hint}")
    return KINDS[section]


def _word(kind: Kind) -> str:
    return next(word for word, known in KINDS.items() if known is kind)


def _check_name(kind: Kind, name: str, registry: Registry) -> None:
    if len(name) > LONGEST:
        raise PackageError(f"a name of {len(name)} letters is too long; {LONGEST} will do")
    if not NAME.fullmatch(name):
        raise PackageError(
            f"a component cannot be called {name!r}: names are lower-case letters and digits, in words "
            "joined by hyphens, and start with a letter, like my-component"
        )
    taken = {_plain(known): known for known in registry.names(kind)}
    if _plain(name) in taken:
        raise PackageError(f"{kind.words} {taken[_plain(name)]!r} is there already; choose another name")
    if find_spec(_package(name)):
        raise PackageError(f"a package {_package(name)!r} is installed already; choose another name")
    class_name = _class_name(name)
    if iskeyword(class_name) or _is_imported(kind, name, {class_name, f"{class_name}Options"}):
        raise PackageError(
            f"{class_name} would hide what its module needs; choose another name than {name!r}"
        )


def _is_imported(kind: Kind, name: str, names: set[str]) -> bool:
    """Return whether the component's module imports something under one of these names."""
    tree = ast.parse(package_files(kind, name)[f"{_package(name)}/{_word(kind)}.py"])
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))
    return any((alias.asname or alias.name) in names for node in imports for alias in node.names)


def _plain(name: str) -> str:
    """Remove what makes two names look different only slightly, such as ``k-means`` and ``KMeans``."""
    return re.sub(r"[-_.]", "", name).lower()


def _package(name: str) -> str:
    """Return the package's import name; its prefix avoids a clash with a library of the same name."""
    return f"ebsc_{name.replace('-', '_')}"


def _class_name(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("-"))

"""Guard the files of a folder by a manifest that holds the SHA-256 of each.

The manifest is written last. It has the form of ``sha256sum``, so ``sha256sum --check manifest`` works, too.
A folder without one was written by an earlier version; its files are read unchecked.
"""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from pathlib import Path, PurePosixPath

from ebsc_core.utils.errors import DataError, EbscError, printable
from ebsc_core.utils.files import written_whole

MANIFEST = "manifest"
LINE = re.compile(r"([0-9a-f]{64})  ([^\0\r\n]+)")
# No folder of ours has as many files; whatever is larger is no manifest.
MAX_BYTES = 1 << 20


def write_manifest(folder: Path, leave_out: tuple[str, ...] = ()) -> None:
    """Write the manifest of all files in a folder and below it, except those in ``leave_out``."""
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    lines = [f"{digest_of(folder / name)}  {name}\n" for name in names if name not in (MANIFEST, *leave_out)]
    with written_whole(folder / MANIFEST) as temporary_path:
        temporary_path.write_text("".join(lines), encoding="utf-8")


class GuardedFolder:
    """Give access to the files of a folder that are the ones that were written.

    No file is read through a symbolic link, which could lead out of the folder.

    Parameters
    ----------
    path : Path
    way_out : str
        What the user can do about a file that is not the one that was written; empty if nothing is needed.
    error : type
        The class of the errors.
    as_it_is : str
        How the user can have a file read that differs; empty if there is no way.
    """

    def __init__(
        self, path: Path, way_out: str = "", error: type[EbscError] = DataError, as_it_is: str = ""
    ) -> None:
        self.path, self.way_out, self.error, self.as_it_is = path, way_out, error, as_it_is
        self.checked: set[str] = set()

    @cached_property
    def digests(self) -> dict[str, str] | None:
        """The digests in the manifest, by file name; None if there is no manifest."""
        path = self.path / MANIFEST
        if not (path.exists() or path.is_symlink()):
            return None
        self._check_plain(MANIFEST)
        try:
            with path.open("rb") as file:
                text = file.read(MAX_BYTES).decode("utf-8")
        except (OSError, UnicodeDecodeError):
            text = ""
        lines = [LINE.fullmatch(line) for line in text.split("\n")[:-1]]
        digests = {line[2]: line[1] for line in lines if line and _is_below(line[2])}
        if not text.endswith("\n") or len(digests) < len(lines):
            raise self._refusal(f"{path} is damaged", self.as_it_is)
        return digests

    @property
    def unchecked(self) -> str:
        """A sentence about a folder whose files cannot be checked; empty if they can."""
        if self.digests is not None:
            return ""
        why = "it was removed, or an earlier version wrote none"
        cure = f"; to have them checked, {self.way_out}" if self.way_out else ""
        return f"{self.path} has no manifest ({why}), so its files are read unchecked{cure}"

    def holds(self, name: str) -> bool:
        """Return whether there is, or should be, a file of this name."""
        return (self.path / name).exists() or name in (self.digests or {})

    def file(self, name: str) -> Path:
        """Return the path of a file that is the one that was written; each file is checked once.

        Raises
        ------
        EbscError
            If the file is missing, is a link, or differs from the one that was written.
        """
        path = self.path / name
        if name in self.checked:
            return path
        self._check_plain(name)
        if self.digests is not None:
            if name not in self.digests:
                raise self._refusal(f"{path} is not in {self.path / MANIFEST}", self.as_it_is)
            try:
                same = digest_of(path) == self.digests[name]
            except OSError as error:
                raise self.error(f"cannot read {path}: {error.strerror or error}") from None
            if not same:
                differs = f"{path} is not the file that was written (its checksum differs)"
                raise self._refusal(differs, self.as_it_is)
        self.checked.add(name)
        return path

    def unlisted(self, name: str) -> Path | None:
        """Return the path of a file that changes alone and is in no manifest; None if there is none.

        Raises
        ------
        EbscError
            If it is a link, or no file.
        """
        path = self.path / name
        if not (path.exists() or path.is_symlink()):
            return None
        self._check_plain(name)
        return path

    def _check_plain(self, name: str) -> None:
        """Raise an error unless the name leads to a file, without symbolic links below the folder."""
        path = self.path
        for part in PurePosixPath(name).parts:
            path = path / part
            if path.is_symlink():
                raise self.error(f"{path} is a link, which may lead anywhere; put the file itself there")
        if not path.is_file():
            what = "is no file" if path.exists() else "is missing"
            raise self._refusal(f"{path} {what}")

    def _refusal(self, what: str, otherwise: str = "") -> EbscError:
        said = f"{what}; {self.way_out}" if self.way_out else what
        return self.error(f"{said} ({otherwise})" if otherwise else said)


def _is_below(name: str) -> bool:
    """Return whether a name in a manifest stays inside its folder and can be shown."""
    return not PurePosixPath(name).is_absolute() and ".." not in name.split("/") and name == printable(name)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

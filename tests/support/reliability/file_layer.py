"""Count what a process does to its files, and kill it at a chosen one of these events.

An audit hook sees what Python opens, makes, renames and removes. Files that Python opens for writing are
replaced by ones that count their writes; so are the few functions that write past both. A process that is
killed at a write has written the first half of it.
"""

from __future__ import annotations

import builtins
import io
import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

AUDITED = {
    *("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"),
    *("os.chmod", "os.utime"),
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class FileLayer:
    """Note every event below a folder; end the process at the event of number ``kill_at``.

    Parameters
    ----------
    folder : str
        Events elsewhere do not count.
    log : int
        The descriptor of the file that gets a line for each event.
    kill_at : int, optional
        The number of an event, from 1 on.
    active : bool
        Whether events of this process count.
    """

    def __init__(self, folder: str, log: int, kill_at: int | None, active: bool) -> None:
        self.folder, self.log, self.kill_at = os.path.realpath(folder), log, kill_at
        self.active, self.count = active, 0
        self.write = os.write

    def install(self) -> None:
        """Start to count; nothing can undo this in the process."""
        import safetensors.torch

        sys.addaudithook(self._audit)
        io.open = builtins.open = self._open
        os.write = self._half_of(os.write, lambda fd, data: (fd, data[: len(data) // 2]))
        os.sendfile = self._half_of(
            os.sendfile, lambda out, source, offset, count: (out, source, offset, count // 2)
        )
        for name in ("fsync", "posix_fallocate"):
            setattr(os, name, self._half_of(getattr(os, name), None))
        real = safetensors.torch.serialize_file

        def serialize_file(tensors: Any, path: Any, **named: Any) -> None:
            def half() -> None:
                real(tensors, path, **named)
                os.truncate(path, os.path.getsize(path) // 2)

            self.event("write", path, half)
            real(tensors, path, **named)

        safetensors.torch.serialize_file = serialize_file

    def event(self, what: str, path: Any, half: Callable[[], Any] | None = None) -> None:
        """Note an event that is about to happen; perhaps kill the process after half of it."""
        if not (self.active and self._inside(path)):
            return
        self.count += 1
        self.write(self.log, f"{what} {os.fsdecode(path)}\n".encode("utf-8", "backslashreplace"))
        if self.count == self.kill_at:
            self.kill_at = None
            if half:
                half()
            os.kill(os.getpid(), signal.SIGKILL)

    def _inside(self, path: Any) -> bool:
        text = os.fsdecode(path)
        whole = os.path.join(os.path.realpath(os.path.dirname(text) or "."), os.path.basename(text))
        return whole.startswith(self.folder + os.sep)

    def _audit(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "open":
            path, _, flags = arguments
            if not isinstance(path, int) and path is not None and flags & WRITING:
                self.event("open", path)
        elif name in AUDITED:
            path = arguments[0]
            if isinstance(path, int):
                path = _path_of(path)
            elif isinstance(arguments[-1], int) and arguments[-1] >= 0 and name in ("os.remove", "os.rmdir"):
                path = os.path.join(_path_of(arguments[-1]), os.fsdecode(path))  # as shutil.rmtree does
            if os.path.lexists(path) != (name == "os.mkdir"):  # otherwise it will fail, and change nothing
                self.event(name.removeprefix("os."), path)

    def _open(
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        """Open a file as ``io.open`` does; one for writing counts its writes."""
        if not set(mode) & set("wax+") or isinstance(file, int):
            return REAL_OPEN(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = CountedFile(file, mode.replace("t", "").replace("b", ""), closefd, opener)
        raw.layer = self
        if buffering == 0:
            return raw
        size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
        buffer = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw, size)
        if "b" in mode:
            return buffer
        text = io.TextIOWrapper(buffer, encoding, errors, newline, line_buffering=buffering == 1)
        text.mode = mode  # type: ignore[misc]
        return text

    def _half_of(self, real: Callable[..., Any], halved: Callable[..., Any] | None) -> Callable[..., Any]:
        def call(descriptor: int, *rest: Any) -> Any:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                half = None if halved is None else lambda: real(*halved(descriptor, *rest))
                self.event(real.__name__, _path_of(descriptor), half)
            return real(descriptor, *rest)

        return call


class CountedFile(io.FileIO):
    """Be a file that tells its layer of every write."""

    layer: FileLayer

    def write(self, data: Any) -> int:
        whole = memoryview(data).cast("B")
        self.layer.event("write", self.name, lambda: io.FileIO.write(self, whole[: len(whole) // 2]))
        return super().write(data)


REAL_OPEN = io.open


def _path_of(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())

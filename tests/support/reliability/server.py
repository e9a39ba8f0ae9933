"""Import ebsc once, and run each command that is asked for in a fork of this process.

Requests and answers are lines of JSON on standard input and output (see ``commands.Request``). A module that
a command had to import is imported here afterwards, so that no later command waits for it.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch

from ebsc_cli import app
from ebsc_core.benchmark import cell
from ebsc_core.training import checkpoint
from support.reliability.file_layer import FileLayer

MIB = 1 << 20
PR_SET_CHILD_SUBREAPER = 36
# Room for a command beyond the memory that this process has already: what runs wild ends there.
MOST_MIB = 6 * 1024
# After this time, what a killed command has started must have ended as well.
PATIENCE_SECONDS = 10.0


def main() -> None:
    """Answer requests until standard input ends."""
    torch.set_num_threads(1)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Run one command in a fork; return its end, its output, its cost and its events."""
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(4)]
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            be_the_command(asked, *(file.fileno() for file in files))
        if asked["kill_after"] is not None:
            time.sleep(asked["kill_after"])
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
        seconds = time.monotonic() - began
        left = await_others(child)
        texts = [read(file) for file in files]
    for line in texts[3].splitlines()[1:]:
        for name in json.loads(line):
            with suppress(Exception):
                importlib.import_module(name)
    start = float(texts[3].partition("\n")[0] or "nan")  # nothing is there if it was killed at once
    return {
        "code": os.waitstatus_to_exitcode(status),
        "out": texts[0],
        "err": texts[1],
        "events": texts[2].splitlines(),
        "seconds": seconds,
        "above_start_mib": usage.ru_maxrss / 1024 - start,
        "left_running": left,
    }


def read(file: Any) -> str:
    """Return what the command has written to a file."""
    file.seek(0)
    text: bytes = file.read()
    return text.decode("utf-8", "backslashreplace")


def await_others(group: int) -> bool:
    """Wait for the other processes of a command; end those that go on, and return whether any did."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        try:
            if os.waitpid(-group, os.WNOHANG) == (0, 0):
                time.sleep(0.01)
        except ChildProcessError:
            return False
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    return True


def be_the_command(asked: dict[str, Any], out: int, err: int, log: int, notes: int) -> NoReturn:
    """Turn this fork into the command, and end with its status."""
    os.setpgid(0, 0)
    os.chdir(asked["folder"])
    os.environ.update(asked["environment"])
    for old, new in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (err, 2)):
        os.dup2(old, new)
    # The timer ends a process that hangs, wherever it does.
    signal.setitimer(signal.ITIMER_REAL, asked["seconds"])
    pages = Path("/proc/self/statm").read_text().split()
    size, resident = (int(count) * resource.getpagesize() for count in pages[:2])
    most = size + MOST_MIB * MIB
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.write(notes, f"{resident / MIB}\n".encode())
    checkpoint.EVERY = asked["checkpoint_every"]
    layer = FileLayer(asked["root"], log, asked["kill_at"], asked["process"] == "main")
    layer.install()
    start = partial(ForkedCell, layer=layer, active=asked["process"] == "cell", notes=notes)
    subprocess.Popen = with_forked_cells(subprocess.Popen, start)
    sys.argv = ["ebsc", *asked["words"]]
    run_and_exit(app.main, layer, notes)


def run_and_exit(work: Callable[[], Any], layer: FileLayer, notes: int) -> NoReturn:
    """Do the work as an interpreter does, note which modules it imported, and end with its status."""
    code, before = 0, set(sys.modules)
    try:
        work()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    layer.write(notes, f"{json.dumps(sorted(set(sys.modules) - before))}\n".encode())
    os._exit(code)


def with_forked_cells(real: Any, start: Callable[..., ForkedCell]) -> Any:
    """Return a ``Popen`` that forks the cells of a benchmark, instead of starting an interpreter for each."""

    def begin(command: Any, *rest: Any, **named: Any) -> Any:
        return start(named) if list(command[-2:]) == ["-m", cell.__name__] else real(command, *rest, **named)

    return begin


class ForkedCell:
    """Be to a benchmark what the process of a cell is to it."""

    def __init__(self, named: dict[str, Any], layer: FileLayer, active: bool, notes: int) -> None:
        self.returncode: int | None = None
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(writing)
            for new, old in enumerate((reading, named["stdout"].fileno(), named["stdout"].fileno())):
                os.dup2(old, new)
            os.environ.update(named["env"])
            sys.stdin = os.fdopen(0)
            layer.active = active
            run_and_exit(cell.main, layer, notes)
        os.close(reading)
        self.stdin = os.fdopen(writing, "w")

    def poll(self) -> int | None:
        """Return the status, or None while the cell runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float = PATIENCE_SECONDS) -> int | None:
        """Wait for the end; raise an error if it does not come in time."""
        until = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("cell", timeout)
            time.sleep(0.01)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to a cell that has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End the cell at once."""
        self.send_signal(signal.SIGKILL)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
    main()

"""Run ``ebsc`` commands in forks of one process, each in a moment, and judge how they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

TESTS = Path(__file__).parents[2]
NEVER = 1e9
# One thread, so that forks start without threads of torch, and results are those of one thread.
ENVIRONMENT = {
    **{f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")},
    "COLUMNS": "250",
}
# Its modules are what nearly all commands need. The first command waits for their import.
FIRST = (
    *(
        "run",
        "--limit",
        "12",
        "--n-clusters",
        "2",
        "--epochs",
        "1",
        "--batch-size",
        "12",
        "--precision",
        "fp32",
    ),
    *("--backbone", "test_resnet", "--set", "refine.steps=1", "--cache", "none", "--out", "run"),
)


@dataclass(frozen=True)
class Request:
    """Say which command runs, and what happens to it."""

    words: tuple[str, ...]
    folder: str
    """The folder in which the command runs."""
    root: str = ""
    """The folder below which events count; by default that of the command."""
    environment: dict[str, str] = field(default_factory=dict)
    seconds: float = 60.0
    """The command is ended after this time."""
    checkpoint_every: float = NEVER
    """The seconds between two checkpoints of a training."""
    process: str = "main"
    """Whose events count: those of ``main``, or those of the ``cell`` of a benchmark."""
    kill_at: int | None = None
    """The event at which that process is killed, from 1 on."""
    kill_after: float | None = None
    """The seconds after which the command is killed."""


@dataclass(frozen=True)
class Ended:
    """Hold how a command ended."""

    code: int
    out: str
    err: str
    events: list[str]
    seconds: float
    above_start_mib: float
    """The memory that the command took beyond that of the imported program."""
    left_running: bool
    """Whether a process that the command had started went on without it."""

    @property
    def killed(self) -> bool:
        """Whether a SIGKILL ended the command."""
        return self.code == -9

    @property
    def hung(self) -> bool:
        """Whether the command took all of its time."""
        return self.code == -14

    @property
    def line(self) -> str | None:
        """The one line with which the command was refused; None if it ended in another way."""
        lines = [line for line in self.err.splitlines() if not line.startswith("warning: ")]
        refused = self.code not in (0, 1) and self.code > 0 and len(lines) == 1
        return lines[0] if refused and lines[0].startswith("ebsc: ") else None

    def __str__(self) -> str:
        return f"status {self.code}, {self.seconds:.1f} s: {self.err[-2000:] or self.out[-500:]}"


class Commands:
    """Hold the process that runs commands; it starts with the first one and ends with this context."""

    def __enter__(self) -> Commands:
        path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.server = subprocess.Popen(
            [sys.executable, "-m", "support.reliability.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ENVIRONMENT | {"PYTHONPATH": path},
        )
        with TemporaryDirectory() as folder:
            ended = self.run(Request(FIRST, folder, seconds=600))
        assert ended.code == 0, ended
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.server.stdin
        self.server.stdin.close()
        self.server.wait()

    def run(self, request: Request) -> Ended:
        """Run a command and wait for its end."""
        assert self.server.stdin
        assert self.server.stdout
        asked = asdict(request) | {"root": request.root or request.folder}
        print(json.dumps(asked), file=self.server.stdin, flush=True)
        return Ended(**json.loads(self.server.stdout.readline()))

"""Kill commands at each event of their files, and find out whether anything is lost.

After a kill the same command, or ``ebsc resume``, must leave what the command leaves that was not killed. Or
it says in one line what to type, and that does.
"""

from __future__ import annotations

import random
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from support.reliability.commands import Commands, Ended, Request
from support.reliability.contents import contents, differing, remains

IDENTICAL, REFUSED, LOST = "identical", "refused with a way out", "lost"
UNFINISHED, REPORT = "unfinished.toml", "report.html"
# The output of a cell is there only while it runs.
LOG = ".log"
TINY = ("--set", "refine.steps=2", "--device", "cpu", "--quiet")
DIGITS = ("--limit", "40", "--n-clusters", "3", *TINY)
TRAINED = (
    *("run", *DIGITS, "--epochs", "2", "--batch-size", "20", "--backbone", "test_resnet"),
    *("--set", "joint.form=reconstruction", "--precision", "fp32", "--cache", "cache", "--out", "run"),
)
CLUSTERED = ("cluster", "rows.npy", "--n-clusters", "3", *TINY, "--out", "run")
PIXELS = ("run", *DIGITS, "--backbone", "identity", "--cache", "none")
EXTRACTED = ("features", "extract", "digits", "--backbone", "identity", "--quiet", "-o", "f.h5")
BENCHMARK = ("--out", "bench", "--cache", "cache", "--quiet")
SUITE = """
title = "Tiny"
seeds = [0]
[settings]
train.epochs = 0
backbone.name = "identity"
data.limit = 40
n_clusters = 3
refine.steps = 2
[data.digits]
data.name = "digits"
[rows.knn]
coefficients.name = "knn"
"""


@dataclass(frozen=True)
class Killed:
    """Name a command that is killed, and what was there before it."""

    words: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()
    """The commands whose results are there."""
    stopped_at: str = ""
    """The event at which the last of them was killed, as ``WHAT SUFFIX`` of its path."""
    process: str = "main"
    resumable: bool = False
    """Whether ``ebsc resume run`` goes on with it."""


COMMANDS = {
    "run": Killed(TRAINED, resumable=True),
    "run of two sets": Killed((*PIXELS, "--set", "protocol=train-test", "--out", "run"), resumable=True),
    "cluster": Killed(CLUSTERED, resumable=True),
    "resume": Killed(
        ("resume", "run", "--quiet"), (TRAINED,), stopped_at="rename .training.safetensors", resumable=True
    ),
    "predict": Killed(
        ("predict", "run", "later.npy", "-o", "out.csv"),
        (CLUSTERED, ("predict", "run", "rows.npy", "-o", "out.csv")),
    ),
    "predict with features": Killed(
        ("predict", "run", "digits", "-o", "out.csv", "--features", "f.h5"),
        ((*PIXELS, "--out", "run"), (*EXTRACTED, "--limit", "30")),
    ),
    "duplicates": Killed(
        ("duplicates", "run", "--quiet", "-o", "out.csv", "--picture", "pairs.png"),
        ((*PIXELS, "--out", "run"), ("duplicates", "run", "--threshold", "1", "-o", "out.csv")),
    ),
    "report": Killed(("report", "run"), ((*PIXELS, "--out", "run"),)),
    "name": Killed(("name", "run", "0", "herbs"), ((*PIXELS, "--out", "run"),)),
    "export": Killed(("export", "run", "--out", "new", "--typical", "2"), ((*PIXELS, "--out", "run"),)),
    "features extract": Killed((*EXTRACTED, "--limit", "40"), ((*EXTRACTED, "--limit", "30"),)),
    "benchmark": Killed(("benchmark", "suite.toml", *BENCHMARK)),
    "cell of a benchmark": Killed(("benchmark", "cell.toml", *BENCHMARK), process="cell"),
}


@dataclass(frozen=True)
class Verdict:
    """Say what a kill came to."""

    what: str
    detail: str = ""
    remains: tuple[str, ...] = ()
    """The hidden files that are still there at the end."""


@dataclass
class Bench:
    """Hold the folder in which one command is killed again and again.

    All happens in ``folder/work``, because results name absolute paths.
    """

    commands: Commands
    folder: Path
    killed: Killed

    def __post_init__(self) -> None:
        self.work = self.folder / "work"
        self.work.mkdir()
        random_rows = np.random.default_rng(0)
        centers = np.eye(3, 8, dtype=np.float32)
        for name, n in (("rows", 30), ("later", 9)):
            rows = np.repeat(centers, n // 3, 0) + 0.1 * random_rows.standard_normal((n, 8), dtype=np.float32)
            np.save(self.work / f"{name}.npy", rows)
        (self.work / "cell.toml").write_text(SUITE)
        (self.work / "suite.toml").write_text(f"{SUITE}[rows.energy]\n")
        for number, words in enumerate(self.killed.before, 1):
            if self.killed.stopped_at and number == len(self.killed.before):
                self._stop_at(words, *self.killed.stopped_at.split())
            else:
                _succeeded(self.run(words))
        self.keep("start")
        self.start = contents(self.work)
        ended = _succeeded(self.run(self.killed.words))
        self.events, self.seconds = ended.events, ended.seconds
        """The events of the command that is not killed, and its time."""
        self.end = contents(self.work)

    def _stop_at(self, words: tuple[str, ...], what: str, suffix: str) -> None:
        self.keep("nothing")
        events = self.run(words).events
        (number,) = [i for i, event in enumerate(events, 1) if event.startswith(what) and suffix in event][:1]
        self.restore("nothing")
        assert self.run(words, kill_at=number + 1).killed

    def run(
        self, words: tuple[str, ...], kill_at: int | None = None, kill_after: float | None = None
    ) -> Ended:
        """Run a command in the folder; it keeps checkpoints after every step of training."""
        environment = {"EBSC_CACHE_DIR": str(self.folder / "user")}
        return self.commands.run(
            Request(
                words,
                str(self.work),
                environment=environment,
                checkpoint_every=0.0,
                process=self.killed.process,
                kill_at=kill_at,
                kill_after=kill_after,
            )
        )

    def keep(self, name: str) -> None:
        """Keep a copy of the folder under this name."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        shutil.copytree(self.work, self.folder / name, symlinks=True)

    def restore(self, name: str) -> None:
        """Make the folder what it was when it was kept."""
        shutil.rmtree(self.work)
        shutil.copytree(self.folder / name, self.work, symlinks=True)

    def kill(self, at: int | None = None, after: float | None = None) -> Iterator[tuple[str, Verdict]]:
        """Kill the command at an event or after some seconds; yield what each way to go on comes to."""
        self.restore("start")
        ended = self.run(self.killed.words, kill_at=at, kill_after=after)
        if ended.left_running:
            yield "kill", Verdict(LOST, "a process that it had started goes on")
        if ended.code == 0:
            return  # it had ended before
        if self.killed.process == "main" and (torn := self._torn()):
            yield "kill", Verdict(LOST, f"torn: {torn}")
        self.keep("killed")
        yield "same command", self._again(self.killed.words)
        if self.killed.resumable:
            self.restore("killed")
            yield "resume", self._again(("resume", "run", "--quiet"))

    def _torn(self) -> list[str]:
        """Return the files that are neither as before the command nor as after it."""
        unfinished = {path.parent for path in self.work.rglob(UNFINISHED)}
        found = contents(self.work)
        return [
            name
            for name in differing(found, self.start)
            if found.get(name) != self.end.get(name)
            and not name.endswith(LOG)
            and not unfinished & set((self.work / name).parents)
        ]

    def _again(self, words: tuple[str, ...]) -> Verdict:
        """Run a command after a kill, and what it says is to be typed; judge what is there then."""
        ended = self.run(words)
        if ended.code == 0:
            return self._judged(IDENTICAL, ended)
        line = ended.line
        if line is None:
            return Verdict(LOST, f"no one line: {ended}")
        if found := re.search(r"to go on: ebsc ([^;,]+)", line):
            then = self.run((*shlex.split(found[1]), "--quiet"))
            return self._judged(REFUSED, then) if then.code == 0 else Verdict(LOST, f"{line}\nthen: {then}")
        if re.search(r"is finished; nothing is left|already holds files|is there already", line):
            # Only the report, the last file of a run, may be missing.
            if not (self.work / "run" / REPORT).exists() and self.run(("report", "run")).code:
                return Verdict(LOST, f"no run, but: {line}")
            return self._judged(REFUSED, ended)
        if re.search(r"does not exist|holds no run", line) and words[0] == "resume":
            then = self.run(self.killed.words)
            return self._judged(REFUSED, then) if then.code == 0 else Verdict(LOST, f"{line}\nthen: {then}")
        return Verdict(LOST, f"no way out: {line}")

    def _judged(self, otherwise: str, ended: Ended) -> Verdict:
        if wrong := differing(contents(self.work), self.end):
            return Verdict(LOST, f"other contents: {wrong}; {ended}")
        return Verdict(otherwise, remains=tuple(remains(self.work)))

    def sample(self, random_numbers: random.Random, count: int | None) -> list[int]:
        """Choose events to be killed at: rare kinds first, or all events without a count."""
        numbers = list(range(1, len(self.events) + 1))
        if count is None:
            return numbers
        random_numbers.shuffle(numbers)
        kinds = {number: kind_of(self.events[number - 1]) for number in numbers}
        seen: Counter[str] = Counter()
        order = {}
        for number in numbers:
            order[number] = seen[kinds[number]]
            seen[kinds[number]] += 1
        return sorted(numbers, key=order.__getitem__)[:count]


def kind_of(event: str) -> str:
    """Return an event without numbers of processes and random names."""
    what, path = event.split(" ", 1)
    return f"{what} {re.sub(r'[0-9]+|[.][0-9a-f]{24}[.].{8}', '', Path(path).name)}"


def _succeeded(ended: Ended) -> Ended:
    assert ended.code == 0, ended
    return ended

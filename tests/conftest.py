"""Provide the fixtures that all tests share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

# On a busy machine, threads that wait for each other make small tensor operations many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from hypothesis import HealthCheck, settings

from ebsc_cli.app import main

# How long an example takes says how busy the machine is.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


class Outcome(NamedTuple):
    """Hold the exit status and the output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session", autouse=True)
def _signals_are_heard() -> None:
    """Restore the handlers of SIGINT and SIGHUP.

    A shell that starts the tests in the background makes them and their child processes ignore the first,
    and ``nohup`` the second.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def ebsc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Call ``ebsc`` with these arguments in an empty folder, on a wide terminal.

    The command runs in this process, because an import of torch for each call would take most of the time.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")

    def call(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["ebsc", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def shell_words() -> Callable[[str], list[str]]:
    """Split the arguments of a printed ``ebsc`` command as a shell does."""

    def words(command: str) -> list[str]:
        shown = command.replace("ebsc ", "printf '%s\\0' ", 1)
        done = subprocess.run(["sh", "-c", shown], capture_output=True, check=True)
        return [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]]

    return words


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test its own cache, so that no test reads or fills the user's cache."""
    monkeypatch.setenv("EBSC_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def with_reports() -> None:
    """Let the runs of this test write reports; other tests write none, which saves time."""


@pytest.fixture(autouse=True)
def _no_reports(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "with_reports" not in request.fixturenames:
        monkeypatch.setattr("ebsc_core.report.report_on", lambda *arguments: None)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Seed torch, so that random numbers do not depend on earlier tests."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of real data sets, or skip the test."""
    folder = os.environ.get("EBSC_DATA_DIR")
    if not folder or not Path(folder).is_dir():
        pytest.skip("EBSC_DATA_DIR names no folder of real data sets")
    return Path(folder).resolve()

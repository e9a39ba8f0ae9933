"""Signals: which end a process, which it lives through, and what becomes of those that work for others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from ebsc_core.utils import signals

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has other signals")
PATIENCE = 60


@pytest.fixture(autouse=True)
def _handlers_as_before() -> Iterator[None]:
    numbers = [signal.SIGINT, *signals.ENDING, signal.SIGUSR1]
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_like_ctrl_c_and_decides_the_exit_status(number: int) -> None:
    signals.listen()
    assert signals.exit_status() == 130
    assert not signals.asked_to_end()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    assert signals.exit_status() == 128 + number
    assert signals.asked_to_end()
    signal.raise_signal(number)  # a second one disturbs nothing that is being cleaned up


def test_what_is_ignored_stays_so() -> None:
    """``nohup`` relies on it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals.listen()
    with signals.interruption() as asked:
        signal.raise_signal(signal.SIGHUP)
        assert not asked()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_in_another_program_only_ctrl_c_waits_for_the_step() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    for _ in range(2):  # a Ctrl-C of an earlier fit is no first one of this fit
        with signals.interruption() as asked:
            signal.raise_signal(signal.SIGTERM)
            assert not asked()
            signal.raise_signal(signal.SIGINT)
            assert asked()
    assert heard == [signal.SIGTERM] * 2


def test_a_request_to_save_is_told_once() -> None:
    signals.listen()
    assert not signals.must_save()
    signal.raise_signal(signal.SIGUSR1)
    assert signals.must_save()
    assert not signals.must_save()


FOLLOWER = """
import signal, sys, time
from ebsc_core.utils import signals
signals.FOLLOWS = float(sys.argv[1])
signals.follow()
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
    signal.raise_signal(number)
time.sleep(1)
print("works", signals.asked_to_end(), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("patience", "said"), [("2", "works True\n"), ("0.1", "")])
def test_a_process_that_follows_works_on_for_some_time(patience: str, said: str) -> None:
    command = [sys.executable, "-c", FOLLOWER, patience]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (143, said)


def test_a_program_that_starts_meanwhile_ignores_them() -> None:
    signals.listen()
    with signals.ignored():
        child = subprocess.Popen([sys.executable, "-c", "print(1, flush=True); input()"], **PIPES)
    assert child.stdout
    assert child.stdout.readline() == "1\n"
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        child.send_signal(number)
    child.communicate("\n", timeout=PATIENCE)
    assert child.returncode == 0
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
RANK = """
import time
from ebsc_cli import process
from ebsc_core.utils.signals import exit_status, listen
process.LOOK_SECONDS = 0.1
listen()
process.end_with_launcher()
print("ready", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    print(exit_status(), flush=True)
"""
LAUNCHER = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {RANK!r}])
"""


@pytest.mark.parametrize(("launched", "said"), [(True, "143"), (False, "")])
def test_a_process_ends_when_nobody_waits_for_it(launched: bool, said: str) -> None:
    environment = os.environ | {"LOCAL_WORLD_SIZE": "2"}
    if not launched:
        del environment["LOCAL_WORLD_SIZE"]
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER], env=environment, start_new_session=True, **PIPES
    )
    assert launcher.stdout
    assert launcher.stdout.readline() == "ready\n"
    launcher.kill()
    if launched:
        assert launcher.stdout.read().strip() == said  # until the process has ended
    else:
        time.sleep(1)
        os.killpg(launcher.pid, 0)  # it is still there
        os.killpg(launcher.pid, signal.SIGKILL)
    launcher.communicate()

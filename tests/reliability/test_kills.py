"""Commands that are killed at any event of their files lose nothing, and say how to go on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from support.reliability.commands import Commands
from support.reliability.kills import COMMANDS, LOST, Bench

# So many kills take some seconds in all; the slow test does all of them.
SAMPLE = {"run": 3, "run of two sets": 2, "cluster": 4, "resume": 2}
OTHERS = 1


def losses(bench: Bench, count: int | None, seed: int) -> list[str]:
    """Kill the command, at each event or at a sample of them; return what was lost."""
    return [
        f"killed at {at} ({bench.events[at - 1]}), {way}: {verdict.detail}"
        for at in bench.sample(random.Random(seed), count)
        for way, verdict in bench.kill(at)
        if verdict.what == LOST
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_kill_loses_nothing(commands: Commands, tmp_path: Path, seed: int, command: str) -> None:
    bench = Bench(commands, tmp_path, COMMANDS[command])
    assert not losses(bench, SAMPLE.get(command, OTHERS), seed)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_no_kill_loses_anything(commands: Commands, tmp_path: Path, seed: int, command: str) -> None:
    assert not losses(Bench(commands, tmp_path, COMMANDS[command]), None, seed)

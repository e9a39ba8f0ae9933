"""A command refuses what strangers send: in one line, within seconds, and within little memory."""

from __future__ import annotations

import random

import pytest

from support.reliability.commands import Commands
from support.reliability.hostile import FINE, HOSTILE, ONE_LINE, RANDOM, Gate

# So many inputs take some seconds; the slow test takes all, and the random ones so many times.
SAMPLE, TIMES = 20, 20


@pytest.fixture(scope="module")
def gate(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Gate:
    return Gate(commands, tmp_path_factory.mktemp("gate"))


def complaints(gate: Gate, name: str, seed: str) -> list[str]:
    """Let a command meet an input; return what is wrong with how it went."""
    verdict = gate.meet(name, random.Random(f"{seed} {name}"))
    return [] if verdict.what in (ONE_LINE, FINE) else [f"{seed}: {verdict.what}: {verdict.detail}"]


def test_a_sample_of_inputs_is_refused_at_once(gate: Gate, seed: int) -> None:
    chosen = random.Random(seed).sample(sorted(HOSTILE), SAMPLE)
    found = {name: wrong for name in chosen if (wrong := complaints(gate, name, str(seed)))}
    assert not found


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_an_input_is_refused_at_once(gate: Gate, seed: int, name: str) -> None:
    times = TIMES if name in RANDOM else 1
    assert not [wrong for time in range(times) for wrong in complaints(gate, name, f"{seed}-{time}")]

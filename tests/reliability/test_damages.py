"""A command that meets a damaged file says so in one line, or its result is right all the same."""

from __future__ import annotations

import random

import pytest

from support.reliability.commands import Commands
from support.reliability.damages import REFUSED, RIGHT, VICTIMS, Ward, kinds_of

# The slow test does each kind of damage so many times.
TIMES = 3


@pytest.fixture(scope="module")
def ward(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Ward:
    return Ward(commands, tmp_path_factory.mktemp("ward"))


def wrongs(ward: Ward, victim: str, kind: str, seed: str, readers: int | None = None) -> list[str]:
    """Damage a file, let commands read it, and return those that were neither right nor refused it."""
    rng = random.Random(f"{seed} {victim} {kind}")
    return [
        f"{kind} of {seed}, {' '.join(words)}: {verdict.what}: {verdict.detail}"
        for words, verdict in ward.harm(victim, kind, rng, readers)
        if verdict.what not in (REFUSED, RIGHT)
    ]


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_damage_is_seen_or_changes_nothing(ward: Ward, victim: str, seed: int) -> None:
    kind = random.Random(f"{seed} {victim}").choice(kinds_of(victim))
    assert not wrongs(ward, victim, kind, str(seed), readers=1)


@pytest.mark.slow
@pytest.mark.parametrize("victim", VICTIMS)
def test_no_damage_makes_a_result_silently_different(ward: Ward, victim: str, seed: int) -> None:
    found = [
        wrong
        for kind in kinds_of(victim)
        for time in range(TIMES)
        for wrong in wrongs(ward, victim, kind, f"{seed}-{time}")
    ]
    assert not found, "\n".join(found)

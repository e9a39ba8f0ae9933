"""Kill, damage and deceive commands for as long as you like, and count what comes of it.

    python benchmarks/reliability.py --minutes 60 [--seed 7] [--out reliability.json]

Kills are real: a SIGKILL at a random time, or at a random event of the files (half of each). The seed is
printed, and is another one each time. Whatever is lost, silently different, or no clear refusal is printed as
it happens, and makes the exit status 1. The commands, damages and inputs are those of tests/reliability.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from measuring import command, described, keep

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.reliability import damages, hostile, kills
from support.reliability.commands import Commands

Outcomes = Iterator[tuple[str, str, str]]
"""What came of something, what was done, and the details."""
KINDS = {
    "kills": (kills.IDENTICAL, kills.REFUSED, kills.LOST),
    "damages": (damages.REFUSED, damages.RIGHT, damages.WRONG, damages.TRACEBACK, damages.HANG),
    "hostile inputs": (
        *(hostile.ONE_LINE, hostile.FINE, hostile.ACCEPTED, hostile.TRACEBACK, hostile.HANG),
        *(hostile.FAT, hostile.OUTSIDE),
    ),
}
GOOD = {kills.IDENTICAL, kills.REFUSED, damages.REFUSED, damages.RIGHT, hostile.ONE_LINE, hostile.FINE}


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to go on")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    rng, until = random.Random(options.seed), time.monotonic() + 60 * options.minutes
    print(f"seed {options.seed}", flush=True)
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder, Commands() as commands:
        ways = dict(zip(KINDS, attacks(commands, Path(folder)), strict=True))
        while time.monotonic() < until:
            for kind, attack in ways.items():
                for what, done, detail in attack(rng):
                    counts[kind][what] += 1
                    if what not in GOOD:
                        print(f"{what}: {done}: {detail}", flush=True)
    for kind, count in counts.items():
        parts = ", ".join(f"{what} {count[what]}" for what in KINDS[kind])
        print(f"{kind}: tried {count.total()}, {parts}")
    keep(described() | {"seed": options.seed, "minutes": options.minutes, "counts": counts}, options.out)
    sys.exit(any(count.keys() - GOOD for count in counts.values()))


def attacks(commands: Commands, folder: Path) -> list[Callable[[random.Random], Outcomes]]:
    """Return one function for each of KINDS, which attacks once."""
    benches: dict[str, kills.Bench] = {}
    for name in ("ward", "gate"):
        (folder / name).mkdir()
    ward, gate = damages.Ward(commands, folder / "ward"), hostile.Gate(commands, folder / "gate")

    def kill(rng: random.Random) -> Outcomes:
        name = rng.choice(sorted(kills.COMMANDS))
        if name not in benches:
            (folder / name).mkdir()
            benches[name] = kills.Bench(commands, folder / name, kills.COMMANDS[name])
        bench = benches[name]
        if rng.random() < 0.5 or bench.killed.process != "main":
            at = rng.randint(1, len(bench.events))
            done, found = f"{name}, at {bench.events[at - 1]}", bench.kill(at=at)
        else:
            after = rng.uniform(0, bench.seconds)
            done, found = f"{name}, after {after:.3f} s", bench.kill(after=after)
        for way, verdict in found:
            yield verdict.what, f"{done}, then {way}", verdict.detail

    def damage(rng: random.Random) -> Outcomes:
        name = rng.choice(sorted(damages.VICTIMS))
        kind = rng.choice(damages.kinds_of(name))
        for words, verdict in ward.harm(name, kind, rng):
            yield verdict.what, f"{kind} of {name}, then {' '.join(words)}", verdict.detail

    def deceive(rng: random.Random) -> Outcomes:
        name = rng.choice(sorted(hostile.HOSTILE))
        verdict = gate.meet(name, rng)
        yield verdict.what, name, verdict.detail

    return [kill, damage, deceive]


if __name__ == "__main__":
    main()

"""Measure the time of commands that only print text: ``ebsc --help`` and the list of plugins.

    python benchmarks/speed/startup.py [--rounds 11] [--out startup.json]

The commands run in turn, after one run that does not count. So the script measures a warm start, with the
files in the system's cache. It measures the seconds of the whole process, from start to end. In the same
turn runs Python that only imports what prints help and tables, and the script tells how many times its CPU
time a command takes.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from statistics import median
from typing import Any

from sides import CLOCKS, command, described, keep

COMMANDS = ("--help", "plugins list", "run --help")
BASELINE = ("-c", "import typer, rich.table")


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    programs = {"imports alone": BASELINE}
    programs |= {f"ebsc {words}": ("-m", "ebsc_cli", *words.split()) for words in COMMANDS}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in programs}
    loads = []
    for number in range(-1, options.rounds):
        loads.append(round(os.getloadavg()[0], 2))
        for name, arguments in programs.items():
            seconds = run(arguments)
            if number >= 0:
                taken[name].append(seconds)
    figures: dict[str, dict[str, Any]] = {name: summary(seconds) for name, seconds in taken.items()}
    baseline = figures["imports alone"]["cpu"]["median_s"]
    for figure in figures.values():
        figure["cpu_times_imports_alone"] = round(figure["cpu"]["median_s"] / baseline, 2)
    print(json.dumps(figures, indent=2))
    keep(described() | {"rounds": options.rounds, "load_average": loads, "commands": figures}, options.out)


def run(arguments: tuple[str, ...]) -> dict[str, float]:
    """Measure the seconds of one program, by clock."""
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": time.perf_counter() - wall, "cpu": cpu}


def summary(taken: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Compute the median and the slowest time, by clock."""
    each = {clock: [seconds[clock] for seconds in taken] for clock in CLOCKS}
    return {
        clock: {"median_s": round(median(values), 3), "slowest_s": round(max(values), 3)}
        for clock, values in each.items()
    }


if __name__ == "__main__":
    main()

"""Compare the number of clusters from ``--n-clusters auto`` with the numbers from other rules.

    ebsc run --data digits --n-clusters auto --seed 0 --out runs/digits-0      # and so on, then
    python benchmarks/n_clusters.py runs/* [--out FILE.json]

stability and gap
    The rule of ebsc (``ebsc_core.clustering.n_clusters``).
stability
    Only stability: the number whose clusters agree most between perturbed graphs.
gap
    The largest eigengap ``λ_K - λ_{K+1}``.
gap at a time
    The largest ``λ_K^t - λ_{K+1}^t``, t the time of the rule of ebsc.

If the run has labels, this script counts the classes; nothing else uses them.
"""

from __future__ import annotations

import csv
import json
import tomllib
from pathlib import Path
from typing import Any

from measuring import command, described, keep


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run with --n-clusters auto")
    options = parser.parse_args()
    found = {path.name: looked_at(path) for path in options.runs}
    print("| run | classes | stability and gap | next | stability | gap | gap at a time |")
    print("|---|---|---|---|---|---|---|")
    for name, run in found.items():
        after = ", ".join(f"{c['k']} ({c['stability']:.2f})" for c in run["runners_up"])
        own = f"**{run['stability and gap']}** ({run['of_chosen']:.2f})"
        others = " | ".join(str(run[rule]) for rule in ("stability", "gap", "gap at a time"))
        print(f"| {name} | {run['classes']} | {own} | {after} | {others} |")
    keep(described() | {"runs": found}, options.out)


def looked_at(path: Path) -> dict[str, Any]:
    """Apply each rule to the record of a run, and return the numbers of clusters."""
    try:
        metrics = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
        config = tomllib.loads((path / "run.toml").read_text(encoding="utf-8"))
        with (path / "assignments.csv").open(newline="", encoding="utf-8") as file:
            labels = {row.get("label") for row in csv.DictReader(file)}
        candidates = metrics["n_clusters"]["candidates"]
    except (OSError, KeyError, TypeError) as error:
        raise SystemExit(f"{path} is not a run with --n-clusters auto ({error!r})") from None
    values = metrics["n_clusters"]["eigenvalues"]
    gaps = {k: values[k - 1] - values[k] for k in range(2, len(values))}
    return {
        "classes": None if labels == {None} else len(labels),
        "seed": config["seed"],
        "top_k": config["top_k"],
        "stability and gap": candidates[0]["k"],
        "of_chosen": candidates[0]["stability"],
        "runners_up": candidates[1:5],
        "stability": max(candidates, key=lambda c: c["stability"])["k"],
        "gap": max(gaps, key=lambda k: gaps[k]),
        "gap at a time": _at_time(values, metrics["n_clusters"]["eigengap_time"]),
        "seconds": metrics["seconds"]["number of clusters"],
    }


def _at_time(values: list[float], time: float) -> int:
    powers = [max(value, 0.0) ** time for value in values]
    return max(range(2, len(powers)), key=lambda k: powers[k - 1] - powers[k])


if __name__ == "__main__":
    main()

"""Measure out-of-sample assignment: fit on four fifths, and assign the last fifth with `ebsc predict`.

    EBSC_DATA_DIR=… python benchmarks/predict.py [--seeds 3] [--out predict.json]

For comparison, `ebsc cluster` clusters all images together; the script computes both accuracies on the same
later images. Features are pixels (digits, COIL-20) or scattering coefficients (10,000 of MNIST). At the
end, the script measures the time of a user's commands: clustering a .csv of features, clustering a .npy of
70,000 rows of 500 entries, and assigning 10,000 of these rows.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from measuring import command, described, ebsc, keep

from ebsc_core.clustering import metrics

SETS = {
    "digits": ("digits", "identity", None),
    "MNIST, 10,000": ("mnist.npz", "scattering", 10_000),
    "COIL-20": ("coil20.npz", "identity", None),
}
HELD_OUT = 0.2


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    out = options.out and options.out.absolute()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        accuracy = {name: compare(*asked, options.seeds) for name, asked in SETS.items()}
        print(json.dumps(accuracy, indent=2))
        record = described() | {"held_out": HELD_OUT, "acc": accuracy, "seconds": waits()}
    print(json.dumps(record["seconds"], indent=2))
    keep(record, out)


def compare(data: str, backbone: str, limit: int | None, seeds: int) -> dict[str, Any]:
    """Measure accuracy on later images, in percent, by assignment and by clustering all images together."""
    extract(data, backbone, limit)
    with h5py.File("features.h5") as file:
        rows, labels = file["features"][:], file["labels"][:]
    k = len(np.unique(labels))
    found: dict[str, list[float]] = {"joined": [], "all together": []}
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(rows))
        later, first = np.split(order, [round(HELD_OUT * len(rows))])
        for name, chosen in {"first": first, "later": later, "all": np.concatenate([later, first])}.items():
            np.save(f"{name}.npy", rows[chosen])
        for name in ("first", "all"):
            ebsc(
                "cluster", f"{name}.npy", "--n-clusters", k, "--seed", seed, "--out", f"{data}-{name}-{seed}"
            )
        ebsc("predict", f"{data}-first-{seed}", "later.npy", "-o", "later.csv")
        together = clusters(Path(f"{data}-all-{seed}/assignments.csv"))[: len(later)]
        for name, given in {"joined": clusters(Path("later.csv")), "all together": together}.items():
            found[name].append(100 * metrics.clustering_accuracy(labels[later], given))
    return {name: summary(values) for name, values in found.items()}


def waits() -> dict[str, float]:
    """Measure the seconds of whole commands."""
    extract("mnist.npz", "scattering", None)
    with h5py.File("features.h5") as file:
        rows = file["features"][:]
    np.save("70000.npy", rows)
    np.save("10000.npy", rows[:10_000])
    extract("digits", "identity", None)
    with h5py.File("features.h5") as file:
        np.savetxt("digits.csv", file["features"][:], delimiter=",")
    k = ("--n-clusters", 10)
    return {
        "ebsc cluster, 1,797 x 64 .csv": ebsc("cluster", "digits.csv", *k),
        f"ebsc cluster, {rows.shape[0]:,} x {rows.shape[1]} .npy": ebsc(
            "cluster", "70000.npy", *k, "--out", "run"
        ),
        "ebsc predict, 10,000 of them": ebsc("predict", "run", "10000.npy", "-o", "later.csv"),
    }


def extract(data: str, backbone: str, limit: int | None) -> None:
    """Extract features of images without training to features.h5."""
    path = Path(os.environ["EBSC_DATA_DIR"]) / data
    words = ["features", "extract", path if path.exists() else data, "--backbone", backbone]
    ebsc(*words, *(["--limit", limit] if limit else []))


def clusters(path: Path) -> np.ndarray:
    with path.open(newline="", encoding="utf-8") as file:
        return np.array([int(line["cluster"]) for line in csv.DictReader(file)])


def summary(values: list[float]) -> dict[str, Any]:
    return {
        "mean": round(float(np.mean(values)), 2),
        "std": round(float(np.std(values, ddof=1)), 2),
        "each": values,
    }


if __name__ == "__main__":
    main()

"""Measure `ebsc outliers` on images with 20 planted foreign ones.

    EBSC_DATA_DIR=… python benchmarks/outliers.py [--seeds 3] [--out outliers.json]

Each seed draws 2,000 images and 20 of another data set, in random order, and clusters them by scattering
features without training. The figure is the number of the 20 among the first 40 outliers.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import numpy as np
from measuring import command, described, ebsc, keep

from ebsc_core.curation.outliers import find_outliers
from ebsc_core.runs.store.saved import SavedRun

IMAGES, FOREIGN, FIRST = 2000, 20, 40
CASES = {
    "Fashion-MNIST among MNIST": ("mnist", "fashion-mnist", 10),
    "COIL-20 among faces (Extended Yale B)": ("extended-yale-b", "coil20", 38),
    "MNIST among Fashion-MNIST": ("fashion-mnist", "mnist", 10),
}


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    out = options.out and options.out.absolute()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        found = {
            name: [hits(*case, f"{number}-{seed}", seed) for seed in range(options.seeds)]
            for number, (name, case) in enumerate(CASES.items())
        }
    print(json.dumps(found, indent=2))
    keep(described() | {"foreign among the first 40": found}, out)


def hits(of: str, foreign: str, n_clusters: int, run: str, seed: int) -> int:
    """Count the foreign images among the first outliers."""
    numbers = np.random.default_rng(seed)
    images = np.concatenate([drawn(of, IMAGES, numbers), drawn(foreign, FOREIGN, numbers)])
    order = numbers.permutation(len(images))
    np.savez("images.npz", images=images[order])
    words = ("--backbone", "scattering", "--epochs", 0, "--cache", "none", "--no-report")
    ebsc("run", "--data", "images.npz", *words, "--n-clusters", n_clusters, "--seed", seed, "--out", run)
    listed = [one.position for one in find_outliers(SavedRun(Path(run)), FIRST)]
    return int((order[listed] >= IMAGES).sum())


def drawn(name: str, n: int, numbers: np.random.Generator) -> np.ndarray:
    with np.load(Path(os.environ["EBSC_DATA_DIR"], f"{name}.npz")) as stored:
        images = stored["images"]
    return images[numbers.choice(len(images), n, replace=False)]


if __name__ == "__main__":
    main()

"""Time a whole fit with many clusters, the random starts of k-means beside the one start by merging.

    OMP_NUM_THREADS=1 python benchmarks/speed/many_clusters.py [--clusters 300] [--model energy] [--rows N]

The rows are like those of CLIP: a cone of groups in 64 of 768 directions, of unlike sizes, 5 % noise. The
script prints the CPU seconds and the ARI against the groups, of both ways on the same rows.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
from sklearn.metrics import adjusted_rand_score

from ebsc_core import EnergySubspaceClustering
from ebsc_core.clustering.spectral import kmeans as module

WIDTH, DIRECTIONS, ABOVE = 768, 64, 12


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clusters", type=int, default=300)
    parser.add_argument("--model", default="knn", help="coefficient model")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows, groups = cone(options.clusters, options.rows, options.seed)
    for way, many in {"merging": module.MANY, "random starts": options.clusters}.items():
        module.MANY = many
        model = EnergySubspaceClustering(
            options.clusters, coefficients=options.model, random_state=options.seed, device="cpu"
        )
        begin = time.process_time()
        labels = model.fit(rows).labels_
        seconds = time.process_time() - begin
        score = adjusted_rand_score(groups[groups >= 0], labels[groups >= 0])
        print(json.dumps({"way": way, "cpu_s": round(seconds, 1), "ari": round(score, 4)}), flush=True)


def cone(n_groups: int, n_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows ``(N, 768)`` and their groups ``(N,)``, -1 for noise."""
    rng = np.random.default_rng(seed)
    sizes = 1 / np.arange(1, n_groups + 1) ** 0.5
    groups = rng.choice(n_groups, size=n_rows, p=sizes / sizes.sum())
    mean = rng.normal(size=WIDTH)
    basis = rng.normal(size=(DIRECTIONS, WIDTH)) / np.sqrt(WIDTH)
    above = rng.normal(size=(ABOVE, DIRECTIONS))
    centers = above[rng.integers(0, ABOVE, n_groups)] + 0.8 * rng.normal(size=(n_groups, DIRECTIONS))
    spread = 1 / np.sqrt(1 + np.arange(DIRECTIONS) / 8)
    inner = centers[groups] + spread * rng.normal(size=(n_rows, DIRECTIONS))
    noise = rng.random(n_rows) < 0.05
    inner[noise] = 1.6 * rng.normal(size=(noise.sum(), DIRECTIONS))
    rows = 1.2 * mean / np.linalg.norm(mean) + 0.12 * (inner @ basis)
    rows += 0.01 * rng.normal(size=rows.shape)
    return rows.astype(np.float32), np.where(noise, -1, groups)


if __name__ == "__main__":
    main()

"""Compare our spectral clusterer with scikit-learn's, with each of its eigensolvers, on the same affinity.

    python benchmarks/speed/spectral.py [--graph blocks|rings|FEATURES.npz] [--threads 2] [--out FILE.json]

All sides get one symmetric affinity and the number of clusters, and return labels. The measured time
includes eigenvectors and k-means. Each node has ``--per-row`` neighbours before the affinity is made
symmetric.

blocks
    The blocks are disconnected, the largest is four times the smallest, and nodes are shuffled. Within a
    block all edges are equally likely. Five nodes have no edge.
rings
    As above, but a block is a ring, and an edge leads at most 5 % around it, so that eigenvalues fall
    slowly.
FEATURES.npz
    The graph is our affinity of ``--nodes`` random rows ``x`` (N, D); ``y`` holds the labels for the
    scores.

The solver amg needs the package pyamg, which nothing else here needs; without it, that side reports a
failure. arpack works once, because it took minutes on 70,000 nodes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sides import Side, command, compare, keep, unit_rows

if TYPE_CHECKING:
    import numpy as np
    from scipy import sparse

SOLVERS = ("lobpcg", "amg", "arpack")
ISOLATED = 5


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--graph", default="blocks", help="blocks, rings, or an .npz file with x and y")
    parser.add_argument("--nodes", type=int, default=70_000)
    parser.add_argument("--per-row", type=int, default=20)
    parser.add_argument("--clusters", type=int, default=10)
    parser.add_argument("--model", default="energy", help="coefficient model for a graph of features")
    parser.add_argument("--solvers", nargs="*", choices=SOLVERS, default=SOLVERS, help="of scikit-learn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=float, default=600, help="the longest time of a side, in seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep-graph", type=Path, help="read the graph from this .npz, or write it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.keep_graph or Path(folder) / "graph.npz"
        if not path.exists():
            with ProcessPoolExecutor(1, get_context("spawn")) as other:
                other.submit(build, options, path).result()
        arguments = (path, options.clusters, options.seed)
        sides = [Side("ours", our_clusterer, arguments, judge)]
        for solver in options.solvers:
            sides.append(Side(solver, scikit_learns, (*arguments, solver), judge, once=solver == "arpack"))
        record = compare(sides, options.rounds, options.threads, options.limit)
    settings = ("graph", "nodes", "per_row", "clusters", "model", "seed")
    record |= {"settings": {name: str(getattr(options, name)) for name in settings}}
    record["settings"]["graph"] = Path(options.graph).name  # the folder of the file does not matter
    print(json.dumps({"times_faster": record["times_faster"]} | record["sides"], indent=2))
    keep(record, options.out)


def our_clusterer(path: Path, n_clusters: int, seed: int) -> Callable[[], np.ndarray]:
    from ebsc_plugins.clusterers.spectral import SpectralClustering, SpectralOptions

    graph, _ = load(path)
    return lambda: SpectralClustering(SpectralOptions(), n_clusters, seed).fit_predict(graph)


def scikit_learns(path: Path, n_clusters: int, seed: int, solver: str) -> Callable[[], np.ndarray]:
    from sklearn.cluster import SpectralClustering

    if solver == "amg":
        import pyamg  # noqa: F401  (scikit-learn imports it only when the work begins)
    warnings.simplefilter("ignore")  # warnings of disconnected graphs; the ARI shows their effect
    graph, _ = load(path)
    clusterer = SpectralClustering(n_clusters, eigen_solver=solver, affinity="precomputed", random_state=seed)
    return lambda: clusterer.fit(graph).labels_


def judge(clusters: np.ndarray, path: Path, *_: Any) -> dict[str, float]:
    """Compute the ARI on the nodes that have a label."""
    from ebsc_core.clustering.metrics import scores

    _, labels = load(path)
    known = labels >= 0
    return {"ari": round(scores(labels[known], clusters[known])["ari"], 4)}


def build(options: argparse.Namespace, path: Path) -> None:
    """Write the affinity and its labels; a missing label is -1."""
    import numpy as np

    rng = np.random.default_rng(options.seed)
    if options.graph in ("blocks", "rings"):
        graph, labels = disconnected(options, rng)
    else:
        graph, labels = self_expressive(options, rng)
    parts = {name: getattr(graph, name) for name in ("data", "indices", "indptr")}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **parts, labels=labels)


def load(path: Path) -> tuple[sparse.csr_matrix, np.ndarray]:
    import numpy as np
    from scipy import sparse

    with np.load(path) as stored:
        graph = sparse.csr_matrix((stored["data"], stored["indices"], stored["indptr"]))
        return graph, stored["labels"]


def disconnected(
    options: argparse.Namespace, rng: np.random.Generator
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Build a graph of one block per cluster, with shuffled nodes; return it and the block of each node."""
    import numpy as np
    from scipy import sparse

    k, degree, n = options.clusters, options.per_row, options.nodes - ISOLATED
    shares = np.linspace(1, 4, k)
    sizes = np.diff(np.round(np.cumsum([0, *shares]) / shares.sum() * n).astype(int))
    first = np.repeat(np.cumsum(sizes) - sizes, sizes)
    size = np.repeat(np.repeat(sizes, sizes), degree)
    node = np.repeat(np.arange(n), degree)
    reach = size if options.graph == "blocks" else np.maximum(size // 20, 2)
    step = rng.integers(1, reach)
    start = np.repeat(first, degree)
    neighbor = start + (node - start + step) % size
    labels = np.append(np.repeat(np.arange(k), sizes), np.full(ISOLATED, -1))
    entries = (np.full(n * degree, 1 / degree, np.float32), (node, neighbor))
    return shuffled(sparse.coo_array(entries, shape=(len(labels), len(labels))), labels, rng)


def shuffled(
    coefficients: sparse.coo_array, labels: np.ndarray, rng: np.random.Generator
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Compute ``½(C + Cᵀ)``, and bring its nodes and labels into a random order."""
    import numpy as np
    from scipy import sparse

    order = rng.permutation(len(labels))
    one_sided = sparse.csr_matrix(coefficients)[order][:, order]
    graph = sparse.csr_matrix((one_sided + one_sided.T) * np.float32(0.5))
    graph.sort_indices()
    return graph, labels[order]


def self_expressive(
    options: argparse.Namespace, rng: np.random.Generator
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Compute the affinity that a run computes from these features."""
    import numpy as np
    import torch

    from ebsc_core.clustering.affinity import symmetrized
    from ebsc_core.clustering.coefficients import self_expressive_coefficients
    from ebsc_core.clustering.refine import refine
    from ebsc_core.config.schema import RefineOptions
    from ebsc_core.data.features.forms import form_width, row_form
    from ebsc_core.data.features.rows import HeldRows
    from ebsc_core.plugins.interfaces import TrainableCoefficientModel
    from ebsc_core.plugins.registry import Kind, Registry
    from ebsc_core.utils.progress import Progress

    features, labels = unit_rows(Path(options.graph), lambda n: rng.permutation(n)[: options.nodes])
    rows = torch.from_numpy(features.astype(np.float32))
    part = Registry().find(Kind.COEFFICIENTS, options.model)
    torch.manual_seed(options.seed)
    whiten = part.spec.whiten or False
    model = part.factory(part.options_class(), form_width(rows.shape[1], whiten))
    rows = row_form(HeldRows(rows), whiten, options.seed)(rows)
    if isinstance(model, TrainableCoefficientModel):
        refine(model.train(), rows, RefineOptions(**model.refinement()), options.seed, Progress())
        model.eval()
    return symmetrized(self_expressive_coefficients(model, rows, options.per_row)), labels


if __name__ == "__main__":
    main()

"""`elastic-net` against its authors' own toolbox, on the same rows in the same run.

    git clone https://github.com/ChongYou/subspace-clustering toolbox
    pip install --target deps spams-bin progressbar2
    PYTHONPATH=deps python benchmarks/ensc.py features.npz --toolbox toolbox [--rows 10000] [--out ensc.json]

The features file holds ``x`` (rows, columns) and ``y``. Both sides get the same seeded sample of it, as rows
of unit length, with one thread, gamma 200, tau 0.9 and 50 coefficients a row, as the authors do for MNIST.
Ours runs before and after theirs, which shows whether the machine grew busier or idler in between; CPU
seconds are given beside wall seconds.

Theirs is used as it is, with the solver spams; nothing of it is in this repository.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from measuring import command, described, keep, timed, unit_rows

GAMMA, TAU, KEPT = 200.0, 0.9, 50
FORMS = ("symmetrize", "nearest_neighbors")


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("features", type=Path)
    parser.add_argument("--toolbox", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--queries", type=int, help="time the first so many rows only, and score nothing")
    parser.add_argument("--sample", type=int, default=200, help="rows whose objective is compared")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="ours runs on, theirs being on the CPU always")
    options = parser.parse_args()
    # Before anything that starts threads is imported.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    sys.path.insert(0, str(options.toolbox))
    record = compare(options)
    print(json.dumps(record, indent=2))
    keep(record, options.out)


def compare(options: argparse.Namespace) -> dict[str, Any]:
    import numpy as np
    import torch

    from ebsc_core.device import describe_device

    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    rng = np.random.default_rng(options.seed)
    rows, labels = unit_rows(options.features, lambda n: rng.permutation(n)[: options.rows])
    n_queries = options.queries or len(rows)
    source = options.toolbox / "cluster" / "selfrepresentation.py"
    record = described() | {
        "rows": list(rows.shape),
        "settings": {"gamma": GAMMA, "tau": TAU, "n_nonzero": KEPT, "seed": options.seed},
        "our_device": describe_device(torch.device(options.device)),
    }
    record["versions"] |= {
        "spams-bin": version("spams-bin"),
        "toolbox_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
    }
    record["machine"]["load_average_before"] = os.getloadavg()
    _, before = timed(lambda: our_coefficients(rows, n_queries, options.device))
    theirs, between = timed(lambda: their_coefficients(rows, n_queries))
    ours, after = timed(lambda: our_coefficients(rows, n_queries, options.device))
    _, encoding = timed(lambda: our_model(rows.shape[1]).encode(torch.from_numpy(rows).float()))
    record["machine"]["load_average_after"] = os.getloadavg()
    seconds = {"ours_before": before, "theirs": between, "ours_after": after, "ours_encoding_alone": encoding}
    record["seconds"] = {
        name: {clock: round(value, 2) for clock, value in taken.items()} for name, taken in seconds.items()
    }
    record["times_faster"] = {
        clock: round(2 * between[clock] / (before[clock] + after[clock]), 1) for clock in between
    }
    if options.queries:
        # Encoding the dictionary is counted in full above, though it serves all rows.
        return record | {"queries": n_queries}
    record["objective"] = objectives(rows, min(options.sample, len(rows)))
    record["scores"] = {
        side: clusterings(coefficients, labels) for side, coefficients in (("ours", ours), ("theirs", theirs))
    }
    return record


def our_model(width: int) -> Any:
    from ebsc_plugins.coefficients.elastic_net import ElasticNet, ElasticNetOptions

    return ElasticNet(ElasticNetOptions(gamma=GAMMA, tau=TAU), width)


def our_coefficients(rows: Any, n_queries: int, device: str) -> Any:
    """All that follows the features, encoding included."""
    import torch

    from ebsc_core.coefficients import expressed

    model, features = our_model(rows.shape[1]), torch.from_numpy(rows).float().to(device)
    found = expressed(model, features[:n_queries], features, KEPT, torch.arange(n_queries, device=device))
    if model.unfinished:
        print(f"{model.unfinished} rows unfinished")
    return found


def their_coefficients(rows: Any, n_queries: int) -> Any:
    """Theirs, as ours are held."""
    import numpy as np
    import torch
    from cluster import selfrepresentation

    from ebsc_core.interfaces import Coefficients

    # Their loop over the rows goes through this name: where it may end early.
    selfrepresentation.progressbar.progressbar = lambda rows: rows[:n_queries]
    matrix = selfrepresentation.elastic_net_subspace_clustering(
        rows.copy(), GAMMA, True, TAU, "spams", True, None, KEPT
    ).tocsr()
    indices = np.zeros((len(rows), KEPT), np.int64)
    values = np.zeros((len(rows), KEPT), np.float32)
    held = np.arange(KEPT) < np.diff(matrix.indptr)[:, None]
    indices[held], values[held] = matrix.indices, matrix.data
    return Coefficients(torch.from_numpy(indices), torch.from_numpy(values))


def objectives(rows: Any, count: int) -> dict[str, float]:
    """What is minimised, of the first rows, every coefficient kept."""
    import numpy as np
    import torch
    from cluster.selfrepresentation import active_support_elastic_net

    model, features = our_model(rows.shape[1]), torch.from_numpy(rows).float()
    most = min(500, len(rows) - 1)
    found = model.coefficients(features[:count], model.encode(features), most, torch.arange(count))
    figures = []
    for i in range(count):
        others, query = rows.copy(), rows[i : i + 1].copy()
        others[i] = 0
        weight = GAMMA * TAU / np.abs(others @ query[0]).max()
        ours = np.zeros(len(rows))
        ours[found.indices[i].numpy()] = found.values[i].numpy()
        theirs = active_support_elastic_net(others, query, 1 / weight, TAU, "spams")
        figures.append([objective(c, others, query[0], weight) for c in (ours, theirs)])
    ours, theirs = np.array(figures).T
    excess = (ours - theirs) / theirs
    return {
        "rows": count,
        "ours_mean": float(ours.mean()),
        "theirs_mean": float(theirs.mean()),
        "largest_relative_excess_of_ours": float(excess.max()),
        "largest_relative_excess_of_theirs": float(-excess.min()),
    }


def objective(coefficients: Any, dictionary: Any, query: Any, weight: float) -> float:
    error = query - coefficients @ dictionary
    penalty = TAU * abs(coefficients).sum() + (1 - TAU) / 2 * (coefficients**2).sum()
    return float(penalty + weight / 2 * error @ error)


def clusterings(coefficients: Any, labels: Any) -> dict[str, dict[str, dict[str, float]]]:
    """Scores by form of the affinity and by who cuts it: the authors' spectral step or our clusterer."""
    import numpy as np
    from cluster.selfrepresentation import ElasticNetSubspaceClustering
    from scipy import sparse

    from ebsc_core.coefficients import affinity
    from ebsc_core.config import AffinityOptions
    from ebsc_core.metrics import scores
    from ebsc_plugins.clusterers.spectral import SpectralClustering, SpectralOptions

    n, n_clusters = len(labels), len(np.unique(labels))
    rows = np.arange(n).repeat(coefficients.indices.shape[1])
    entries = (coefficients.values.double().numpy().ravel(), (rows, coefficients.indices.numpy().ravel()))
    result: dict[str, dict[str, dict[str, float]]] = {}
    for form in FORMS:
        authors = ElasticNetSubspaceClustering(n_clusters, affinity=form, random_state=0)
        authors.representation_matrix_ = sparse.csr_matrix(entries, shape=(n, n))
        authors._representation_to_affinity()
        authors._spectral_clustering()
        graph = affinity(coefficients, AffinityOptions(form=form))
        clusters = SpectralClustering(SpectralOptions(), n_clusters, 0).fit_predict(graph)
        result[form] = {
            "their_spectral_step": scores(labels, authors.labels_),
            "our_clusterer": scores(labels, clusters),
        }
    return result


if __name__ == "__main__":
    main()

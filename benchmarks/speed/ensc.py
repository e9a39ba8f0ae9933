"""Compare our coefficients with the EnSC toolbox of its authors, on the same rows in the same run.

    git clone https://github.com/ChongYou/subspace-clustering toolbox
    pip install --target deps spams-bin progressbar2
    PYTHONPATH=deps python benchmarks/speed/ensc.py features.npz --toolbox toolbox [--model energy] [--out …]

The features file holds ``x`` (N, D) and ``y``. All sides get the same seeded sample of it, as rows of unit
length. The toolbox and ``elastic-net`` use gamma 200, tau 0.9 and 50 coefficients per row, as the authors
do for MNIST. The measured time begins with the rows and ends with the coefficients of each row; for
``energy`` it includes whitening. The toolbox runs once. The script scores both clusterers on
both affinities.

It uses the toolbox unchanged, with the solver spams; this repository contains none of that code.
"""

from __future__ import annotations

import hashlib
import json
import sys
from argparse import Namespace
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sides import Side, command, compare, keep, unit_rows

GAMMA, TAU, KEPT = 200.0, 0.9, 50
FORMS = ("symmetrize", "nearest_neighbors")


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("features", type=Path)
    parser.add_argument("--toolbox", type=Path, required=True)
    parser.add_argument("--model", choices=("elastic-net", "energy"), default="elastic-net")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--queries", type=int, help="express only this many rows, and score nothing")
    parser.add_argument("--sample", type=int, default=200, help="compare the objective on this many rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="device of our side; the toolbox runs on the CPU")
    options = parser.parse_args()
    model = {"elastic-net": our_elastic_net, "energy": our_energy}[options.model]
    scored = None if options.queries else judge
    sides = [
        Side(options.model, model, (options,), scored),
        Side("toolbox", their_elastic_net, (options,), scored, once=True),
    ]
    record = compare(sides, options.rounds, options.threads) | settings(options)
    if options.model == "elastic-net" and not options.queries:
        record["objective"] = objectives(options)
    print(json.dumps(record, indent=2))
    keep(record, options.out)


def settings(options: Namespace) -> dict[str, Any]:
    import torch

    from ebsc_core.utils.device import describe_device

    source = options.toolbox / "cluster" / "selfrepresentation.py"
    return {
        "rows": options.rows,
        "queries": options.queries or options.rows,
        "settings": {"gamma": GAMMA, "tau": TAU, "n_nonzero": KEPT, "seed": options.seed},
        "our_device": describe_device(torch.device(options.device)),
        "toolbox": {
            "spams-bin": version("spams-bin"),
            "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        },
    }


def sampled(options: Namespace) -> tuple[Any, Any]:
    """Draw rows ``(N, D)``, float64, and their labels."""
    import numpy as np

    rng = np.random.default_rng(options.seed)
    return unit_rows(options.features, lambda n: rng.permutation(n)[: options.rows])


def our_elastic_net(options: Namespace) -> Callable[[], Any]:
    import torch

    from ebsc_core.clustering.coefficients import expressed
    from ebsc_plugins.coefficients.elastic_net import ElasticNet, ElasticNetOptions

    features = torch.from_numpy(sampled(options)[0]).float().to(options.device)
    queries = features[: options.queries]
    own = torch.arange(len(queries), device=options.device)

    def work() -> Any:
        model = ElasticNet(ElasticNetOptions(gamma=GAMMA, tau=TAU), features.shape[1])
        found = expressed(model, queries, features, KEPT, own)
        if model.unfinished:
            raise RuntimeError(f"{model.unfinished} rows unfinished")
        return found

    return work


def our_energy(options: Namespace) -> Callable[[], Any]:
    import numpy as np
    import torch

    from ebsc_core.clustering.coefficients import auto_top_k, expressed
    from ebsc_core.data.features.neighbor_whitening import NeighborWhitening
    from ebsc_core.data.features.rows import HeldRows
    from ebsc_plugins.coefficients.energy import EnergyNetwork, EnergyOptions

    rows, labels = sampled(options)
    features = torch.from_numpy(rows).float().to(options.device)
    own = torch.arange(options.queries or len(rows), device=options.device)
    top_k = auto_top_k(len(rows), len(np.unique(labels)))

    def work() -> Any:
        shown = NeighborWhitening(HeldRows(features), seed=options.seed)(features)
        torch.manual_seed(options.seed)
        model = EnergyNetwork(EnergyOptions(), shown.shape[1]).to(options.device)
        return expressed(model.eval(), shown[: len(own)], shown, top_k, own)

    return work


def their_elastic_net(options: Namespace) -> Callable[[], Any]:
    """Run the toolbox, and return its coefficients in our format."""
    sys.path.insert(0, str(options.toolbox))
    import numpy as np
    import torch
    from cluster import selfrepresentation

    from ebsc_core.plugins.interfaces import Coefficients

    rows, n_queries = sampled(options)[0], options.queries or options.rows
    # Their loop over the rows uses this name, so the replacement can end the loop early.
    selfrepresentation.progressbar.progressbar = lambda rows: rows[:n_queries]

    def work() -> Any:
        matrix = selfrepresentation.elastic_net_subspace_clustering(
            rows.copy(), GAMMA, True, TAU, "spams", True, None, KEPT
        ).tocsr()
        indices = np.zeros((len(rows), KEPT), np.int64)
        values = np.zeros((len(rows), KEPT), np.float32)
        held = np.arange(KEPT) < np.diff(matrix.indptr)[:, None]
        indices[held], values[held] = matrix.indices, matrix.data
        return Coefficients(torch.from_numpy(indices), torch.from_numpy(values))

    return work


def judge(coefficients: Any, options: Namespace) -> dict[str, Any]:
    sys.path.insert(0, str(options.toolbox))
    return clusterings(coefficients, sampled(options)[1])


def objectives(options: Namespace) -> dict[str, float]:
    """Compare the objectives of the first rows, with all coefficients."""
    sys.path.insert(0, str(options.toolbox))
    import numpy as np
    import torch
    from cluster.selfrepresentation import active_support_elastic_net

    from ebsc_plugins.coefficients.elastic_net import ElasticNet, ElasticNetOptions

    rows, _ = sampled(options)
    features, count = torch.from_numpy(rows).float(), min(options.sample, len(rows))
    model, most = (
        ElasticNet(ElasticNetOptions(gamma=GAMMA, tau=TAU), features.shape[1]),
        min(500, len(rows) - 1),
    )
    with torch.no_grad():
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
    """Score each form of the affinity with the authors' spectral step and with our clusterer."""
    import numpy as np
    from cluster.selfrepresentation import ElasticNetSubspaceClustering
    from scipy import sparse

    from ebsc_core.clustering.affinity import affinity
    from ebsc_core.clustering.metrics import scores
    from ebsc_core.config.schema import AffinityOptions
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

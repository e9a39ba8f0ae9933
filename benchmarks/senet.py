"""Compare our ``senet`` with its authors' code, on the same rows, iterations and post-processing.

    python benchmarks/senet.py --features mnist.npz --authors Self-Expressive-Network --iterations 1000

``--features`` is an .npz with ``x`` (N, D) and labels ``y``; the script scales rows to unit length.
``--authors`` is a checkout of github.com/zhangsz1998/Self-Expressive-Network. The script uses its
``main.py``, ``utils.py`` and ``metrics``; this repository contains none of that code. Their training loop
cannot be imported, so :func:`train_theirs` reproduces it with their network and regulariser. Both sides
follow the published schedule, with its cosine over ``--iterations`` (published: 100,000, which needs a
GPU).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import numpy as np
import torch
from measuring import command, described, keep, timed, unit_rows
from scipy import sparse
from sklearn.metrics import cluster
from sklearn.preprocessing import normalize
from torch import Tensor, nn

from ebsc_core.benchmark.results import Spread
from ebsc_core.clustering.affinity import nearest_neighbors
from ebsc_core.clustering.coefficients import self_expressive_coefficients
from ebsc_core.clustering.metrics import scores
from ebsc_core.clustering.refine import refine
from ebsc_core.config.schema import RefineOptions
from ebsc_core.runs.store.listing import SCORES
from ebsc_core.utils.device import describe_device
from ebsc_core.utils.progress import Progress
from ebsc_plugins.clusterers.spectral import SpectralClustering, SpectralOptions
from ebsc_plugins.coefficients.senet import SENet, SENetOptions

PUBLISHED = 100_000
BATCH = 100
LARGEST_BLOCK = 10_000
TOP_K = 1000
NEIGHBORS = 3
VECTORS = 15
SIDES = ("ours", "theirs")


def load_authors(checkout: Path, device: str) -> ModuleType:
    """Import the authors' ``main`` module such that it runs with today's scikit-learn and without a GPU."""
    # scikit-learn has renamed this module. Only a function that is not called here needs Munkres.
    cluster.supervised = cluster._supervised
    sys.modules.setdefault("munkres", ModuleType("munkres")).__dict__["Munkres"] = None
    if device == "cpu":
        for kind in (Tensor, nn.Module):
            kind.cuda = lambda self, *_, **__: self
    sys.path.insert(0, str(checkout))
    return import_module("main")


def new_ours(width: int, seed: int, device: str) -> SENet:
    torch.manual_seed(seed)
    return SENet(SENetOptions(), width).to(device)


def new_theirs(authors: ModuleType, width: int, seed: int) -> Any:
    authors.same_seeds(seed)
    options = SENetOptions()
    hidden = [options.hidden] * options.layers
    return authors.SENet(width, hidden, options.width, kaiming_init=True).cuda()


def train_ours(model: SENet, rows: Tensor, iterations: int, seed: int) -> None:
    options = RefineOptions(**model.refinement() | {"steps": iterations})
    refine(model.train(), rows, options, seed, Progress())


def train_theirs(authors: ModuleType, model: Any, data: Tensor, iterations: int, seed: int) -> None:
    """Train as the authors do: batches by epoch, one cosine step per epoch, all data as dictionary."""
    published = new_ours(1, seed, "cpu").refinement()  # new_ours also seeds the order of the batches
    per_epoch, block_size = len(data) // BATCH, min(len(data), LARGEST_BLOCK)
    epochs = iterations // per_epoch
    optimizer = torch.optim.Adam(model.parameters(), lr=published["lr"])
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(data))[: per_epoch * BATCH].split(BATCH):
            batch = data[chosen].cuda()
            loss = their_loss(authors, model, batch, data.split(block_size))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), published["clip"])
            optimizer.step()
        cosine.step()


def their_loss(authors: ModuleType, model: Any, batch: Tensor, blocks: tuple[Tensor, ...]) -> Tensor:
    """Compute the mean loss of a batch over all coefficients, and subtract the batch's own ones."""
    options = SENetOptions()
    queries, keys = model.query_embedding(batch), model.key_embedding(batch)
    own = model.shrink * model.thres((queries * keys).sum(dim=1, keepdim=True))
    reconstruction, penalty = -own * batch, -authors.regularizer(own, options.lmbd)
    for part in blocks:
        block = part.cuda()
        coefficients = model.get_coeff(queries, model.key_embedding(block))
        reconstruction = reconstruction + coefficients.mm(block)
        penalty = penalty + authors.regularizer(coefficients, options.lmbd)
    error = (batch - reconstruction).square().sum()
    return (0.5 * options.gamma * error + penalty) / len(batch)


def with_their_weights(theirs: Any, width: int, device: str) -> SENet:
    """Copy the parameters of their network into ours; both list them in the same order."""
    model = new_ours(width, 0, device)
    with torch.no_grad():
        for network, other in ((model.query, theirs.net_q), (model.key, theirs.net_k)):
            for mine, their in zip(network.parameters(), other.parameters(), strict=True):
                mine.copy_(their)
        model.threshold.copy_(theirs.thres.bias[0])
    return model.eval()


@torch.no_grad()
def whole_loss(model: SENet, rows: Tensor) -> float:
    """Compute the loss of all rows over all other rows, with our formula."""
    total = 0.0
    for own in torch.arange(len(rows), device=rows.device).split(500):
        total += len(own) * model.loss(rows[own], model.express(rows[own], rows, own)).item()
    return total / len(rows)


def our_graph(model: SENet, rows: Tensor) -> sparse.csr_matrix:
    kept = self_expressive_coefficients(model.eval(), rows, min(TOP_K, len(rows) - 1))
    return nearest_neighbors(kept, NEIGHBORS)


def their_graph(authors: ModuleType, model: Any, data: Tensor) -> sparse.csr_matrix:
    block = min(len(data), LARGEST_BLOCK)
    kept = authors.get_sparse_rep(model, data, batch_size=block, chunk_size=block, non_zeros=TOP_K)
    graph = authors.get_knn_Aff(normalize(kept).astype(np.float32), k=NEIGHBORS)
    return sparse.csr_matrix(graph, dtype=np.float32)


def scored(authors: ModuleType, graph: sparse.csr_matrix, labels: np.ndarray, seed: int) -> dict[str, Any]:
    """Score their spectral step and ours on one graph."""
    n_clusters = len(np.unique(labels))
    published = authors.utils.spectral_clustering(graph, n_clusters, VECTORS)
    ours = SpectralClustering(SpectralOptions(), n_clusters, seed).fit_predict(graph)
    return {"authors_spectral": scores(labels, published), "our_spectral": scores(labels, ours)}


@torch.no_grad()
def same_weights(authors: ModuleType, theirs: Any, ours: SENet, rows: Tensor) -> dict[str, float]:
    """Compare both sides on a batch with the same weights; they differ only by rounding errors."""
    own = torch.arange(BATCH, device=rows.device)
    batch, data = rows[:BATCH], rows.cpu()
    their = their_loss(authors, theirs, batch, data.split(LARGEST_BLOCK)).item()
    mine = ours.loss(batch, ours.express(batch, rows, own)).item()
    kept = ours.coefficients(batch, ours.encode(rows), len(rows) - 1, own)
    dense = torch.zeros(BATCH, len(rows), device=rows.device).scatter(1, kept.indices, kept.values)
    expected = theirs(batch, rows)
    expected[own, own] = 0
    return {
        "loss_ours": mine,
        "loss_theirs": their,
        "largest_coefficient": expected.abs().max().item(),
        "largest_coefficient_difference": (dense - expected).abs().max().item(),
    }


def seconds(train: Callable[[int, int], None], iterations: int, seed: int, device: str) -> dict[str, float]:
    """Measure the seconds per iteration, until the device has finished its work."""

    def work() -> None:
        train(iterations, seed)
        if device != "cpu":
            torch.cuda.synchronize()

    return {clock: taken / iterations for clock, taken in timed(work)[1].items()}


def speed(authors: ModuleType, rows: Tensor, rounds: int, device: str) -> dict[str, Any]:
    """Measure the seconds per iteration; the sides take turns, one of the authors' epochs at a time.

    ``cpu`` is the CPU time of this process; on a shared machine it is more reliable than the wall clock.
    """
    n, width = len(rows) // BATCH, rows.shape[1]
    sides = {
        "ours": partial(train_ours, new_ours(width, 0, device), rows),
        "theirs": partial(train_theirs, authors, new_theirs(authors, width, 0), rows.cpu()),
    }
    turns = [{side: seconds(train, n, 0, device) for side, train in sides.items()} for _ in range(rounds + 1)]
    del turns[0]  # the first turn was the warm-up
    figures: dict[str, Any] = {"rounds": rounds, "iterations_a_round": n}
    for clock in ("wall", "cpu"):
        found = {side: median(turn[side][clock] for turn in turns) for side in SIDES}
        ratio = {"ours_over_theirs": found["ours"] / found["theirs"]}
        figures[f"{clock}_s_per_iteration"] = found | ratio
    return figures


def compare(
    authors: ModuleType, rows: Tensor, labels: np.ndarray, seed: int, iterations: int, device: str
) -> dict[str, Any]:
    """Train both sides on the same rows, and score both."""
    width, data = rows.shape[1], authors.utils.p_normalize(rows.cpu())
    ours, theirs = new_ours(width, seed, device), new_theirs(authors, width, seed)
    mirror = partial(with_their_weights, theirs, width, device)
    # Each side has a function for its weights in our network, one that trains it, and one for its graph.
    sides: dict[str, tuple[Callable[[], SENet], Callable[[int, int], None], Callable[[], Any]]] = {
        "ours": (lambda: ours, partial(train_ours, ours, rows), partial(our_graph, ours, rows)),
        "theirs": (
            mirror,
            partial(train_theirs, authors, theirs, data),
            partial(their_graph, authors, theirs, data),
        ),
    }
    figures: dict[str, Any] = {"seed": seed}
    for side, (as_ours, train, graph) in sides.items():
        figures[side] = {
            "loss_at_start": whole_loss(as_ours(), rows),
            "s_per_iteration": seconds(train, iterations, seed, device)["wall"],
            "loss_at_end": whole_loss(as_ours(), rows),
            "threshold": as_ours().threshold.item(),
        } | scored(authors, graph(), labels, seed)
    return figures | {"same_weights": same_weights(authors, theirs.eval(), mirror(), rows)}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Compute mean and standard deviation over the seeds."""

    def over(values: list[float]) -> dict[str, float | None]:
        return asdict(Spread.of(values))

    return {
        side: {"loss_at_end": over([run[side]["loss_at_end"] for run in runs])}
        | {
            step: {name: over([run[side][step][name] for run in runs]) for name in SCORES}
            for step in ("authors_spectral", "our_spectral")
        }
        for side in SIDES
    }


def sampled(features: Path, n_rows: int, seed: int, device: str) -> tuple[Tensor, np.ndarray]:
    """Draw seeded rows of unit length, on the device, and their labels."""
    rng = np.random.default_rng(seed)
    rows, labels = unit_rows(features, lambda n: rng.choice(n, n_rows, replace=False))
    return torch.from_numpy(rows).float().to(device), labels


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--authors", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--iterations", type=int, default=PUBLISHED)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the timing")
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu"
    )
    options = parser.parse_args()
    per_epoch = options.rows // BATCH
    if options.rows < BATCH or (options.rows > LARGEST_BLOCK and options.rows % LARGEST_BLOCK):
        parser.error(f"--rows must be from {BATCH} to {LARGEST_BLOCK}, or a multiple of {LARGEST_BLOCK}")
    if options.iterations < per_epoch or options.iterations % per_epoch:
        parser.error(f"--iterations must be a multiple of {per_epoch}, the iterations of an epoch")
    authors = load_authors(options.authors, options.device)
    rows, _ = sampled(options.features, options.rows, options.seeds[0], options.device)
    record = described() | {
        "features": options.features.name,
        "rows": options.rows,
        "iterations": options.iterations,
        "published_iterations": PUBLISHED,
        "schedule": f"as published, its cosine drawn over {options.iterations} iterations",
        "post_processing": f"top {TOP_K}, {NEIGHBORS}-NN graph, {VECTORS} vectors (our_spectral: our own)",
        "time": speed(authors, rows, options.rounds, options.device),
        "runs": [],
    }
    record["machine"] |= {"device": describe_device(rows.device), "torch": torch.__version__}
    print(json.dumps(record["time"]), flush=True)
    for seed in options.seeds:
        rows, labels = sampled(options.features, options.rows, seed, options.device)
        run = compare(authors, rows, labels, seed, options.iterations, options.device)
        print(json.dumps(run), flush=True)
        record["runs"].append(run)
        record["summary"] = summary(record["runs"])
        keep(record, options.out)
    print(json.dumps(record["summary"], indent=2))


if __name__ == "__main__":
    main()

"""Our ``senet`` against its authors' code: same rows, same number of iterations, same post-processing.

    python benchmarks/senet.py --features mnist.npz --authors Self-Expressive-Network --iterations 1000

``--features`` is an .npz with ``x`` (N, D) and labels ``y``; rows are scaled to unit length. ``--authors``
is a checkout of github.com/zhangsz1998/Self-Expressive-Network; its ``main.py``, ``utils.py`` and ``metrics``
are used, and nothing of it is kept here. Their training loop cannot be imported, so that
:func:`train_theirs` follows it with their network and regulariser. Both sides follow the published schedule,
its cosine drawn over ``--iterations`` (published: 100,000, for which one wants a GPU).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from statistics import mean, median, stdev
from types import ModuleType
from typing import Any

import numpy as np
import sklearn
import torch
from scipy import sparse
from sklearn.preprocessing import normalize
from torch import Tensor, nn
from torch.nn import functional as F

from ebsc_core.coefficients import nearest_neighbours, self_expressive_coefficients
from ebsc_core.config import RefineOptions
from ebsc_core.metrics import scores
from ebsc_core.progress import Progress
from ebsc_core.training.refine import refine
from ebsc_plugins.clusterers.spectral import SpectralClustering, SpectralOptions
from ebsc_plugins.coefficients.senet import SENet, SENetOptions

PUBLISHED = 100_000
BATCH = 100
LARGEST_BLOCK = 10_000
TOP_K = 1000
NEIGHBOURS = 3
VECTORS = 15
SIDES = ("ours", "theirs")


def load_authors(checkout: Path, device: str) -> ModuleType:
    """Their ``main`` module, made to run with today's scikit-learn and without a GPU."""
    from sklearn.metrics.cluster import _supervised

    # Renamed since; Munkres serves a function that is not called here.
    sklearn.metrics.cluster.supervised = _supervised
    sys.modules.setdefault("munkres", ModuleType("munkres")).Munkres = None
    if device == "cpu":
        torch.Tensor.cuda = lambda self, *_, **__: self
        nn.Module.cuda = lambda self, *_, **__: self
    sys.path.insert(0, str(checkout))
    import main as authors

    return authors


def new_ours(width: int, seed: int, device: str) -> SENet:
    torch.manual_seed(seed)
    return SENet(SENetOptions(), width).to(device)


def new_theirs(authors: ModuleType, width: int, seed: int) -> nn.Module:
    authors.same_seeds(seed)
    options = SENetOptions()
    hidden = [options.hidden] * options.layers
    return authors.SENet(width, hidden, options.width, kaiming_init=True).cuda()


def train_ours(model: SENet, rows: Tensor, iterations: int, seed: int) -> None:
    options = RefineOptions(**model.refinement() | {"steps": iterations})
    refine(model.train(), rows, options, seed, Progress())


def train_theirs(authors: ModuleType, model: nn.Module, data: Tensor, iterations: int) -> None:
    """Their schedule: epochs of batches, the cosine one step an epoch, the whole data as dictionary."""
    options, published = SENetOptions(), new_ours(1, 0, "cpu").refinement()
    per_epoch, block_size = len(data) // BATCH, min(len(data), LARGEST_BLOCK)
    epochs = iterations // per_epoch
    optimiser = torch.optim.Adam(model.parameters(), lr=published["lr"])
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=epochs)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(data))[: per_epoch * BATCH].split(BATCH):
            batch = data[chosen].cuda()
            loss = their_loss(authors, model, batch, data.split(block_size), options)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), published["clip"])
            optimiser.step()
        cosine.step()


def their_loss(
    authors: ModuleType, model: nn.Module, batch: Tensor, blocks: tuple[Tensor, ...], options: SENetOptions
) -> Tensor:
    """The mean loss of a batch: all coefficients, then the batch's own taken off again."""
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


def with_their_weights(theirs: nn.Module, width: int, device: str) -> SENet:
    """Our network with the parameters of theirs; both list them in the same order."""
    model = new_ours(width, 0, device)
    by_name = {"net_q": model.query, "net_k": model.key}
    with torch.no_grad():
        for name, network in by_name.items():
            for mine, other in zip(network.parameters(), getattr(theirs, name).parameters(), strict=True):
                mine.copy_(other)
        model.threshold.copy_(theirs.thres.bias[0])
    return model.eval()


@torch.no_grad()
def whole_loss(model: SENet, rows: Tensor) -> float:
    """The loss over all rows by all others, with our formula."""
    total = 0.0
    for own in torch.arange(len(rows), device=rows.device).split(500):
        total += len(own) * model.loss(rows[own], model.express(rows[own], rows, own)).item()
    return total / len(rows)


def our_graph(model: SENet, rows: Tensor) -> sparse.csr_matrix:
    kept = self_expressive_coefficients(model.eval(), rows, min(TOP_K, len(rows) - 1))
    return nearest_neighbours(kept, NEIGHBOURS)


def their_coefficients(authors: ModuleType, model: nn.Module, data: Tensor) -> sparse.csr_matrix:
    block = min(len(data), LARGEST_BLOCK)
    return authors.get_sparse_rep(model, data, batch_size=block, chunk_size=block, non_zeros=TOP_K)


def their_graph(authors: ModuleType, model: nn.Module, data: Tensor) -> sparse.csr_matrix:
    kept = normalize(their_coefficients(authors, model, data)).astype(np.float32)
    return sparse.csr_matrix(authors.get_knn_Aff(kept, k=NEIGHBOURS), dtype=np.float32)


def scored(authors: ModuleType, graph: sparse.csr_matrix, labels: np.ndarray, seed: int) -> dict[str, Any]:
    """Scores of their spectral step and of ours on one graph."""
    n_clusters = len(np.unique(labels))
    published = authors.utils.spectral_clustering(graph, n_clusters, VECTORS)
    ours = SpectralClustering(SpectralOptions(), n_clusters, seed).fit_predict(graph)
    return {"authors_spectral": scores(labels, published), "our_spectral": scores(labels, ours)}


@torch.no_grad()
def same_weights(authors: ModuleType, theirs: nn.Module, ours: SENet, rows: Tensor) -> dict[str, float]:
    """How far the two sides are apart on a batch when they hold the same weights; rounding only."""
    own = torch.arange(BATCH, device=rows.device)
    batch, data = rows[:BATCH], rows.cpu()
    their = their_loss(authors, theirs, batch, data.split(LARGEST_BLOCK), SENetOptions()).item()
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


def timed(authors: ModuleType, rows: Tensor, rounds: int, device: str) -> dict[str, Any]:
    """Seconds per iteration, the sides taking turns, an epoch of theirs at a time.

    ``cpu`` counts what this process computed: on a shared machine it says more than the clock on the wall.
    """
    n, width, data = len(rows) // BATCH, rows.shape[1], rows.cpu()
    ours, theirs = new_ours(width, 0, device), new_theirs(authors, width, 0)
    taken: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    for round_ in range(rounds + 1):
        for side in SIDES:
            _wait(device)
            wall, cpu = time.perf_counter(), time.process_time()
            if side == "ours":
                train_ours(ours, rows, n, 0)
            else:
                train_theirs(authors, theirs, data, n)
            _wait(device)
            if round_:  # the first warms up
                taken[side].append(((time.perf_counter() - wall) / n, (time.process_time() - cpu) / n))
    figures: dict[str, Any] = {"rounds": rounds, "iterations_a_round": n}
    for place, name in enumerate(("wall", "cpu")):
        found = {side: median(pair[place] for pair in taken[side]) for side in SIDES}
        ratio = {"ours_over_theirs": found["ours"] / found["theirs"]}
        figures[f"{name}_s_per_iteration"] = found | ratio
    return figures


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def compare(
    authors: ModuleType, rows: Tensor, labels: np.ndarray, seed: int, iterations: int, device: str
) -> dict[str, Any]:
    """Train both on the same rows and score both."""
    width, data = rows.shape[1], authors.utils.p_normalize(rows.cpu())
    figures: dict[str, Any] = {"seed": seed}

    start = time.perf_counter()
    ours = new_ours(width, seed, device)
    figures["ours"] = {"loss_at_start": whole_loss(ours, rows)}
    train_ours(ours, rows, iterations, seed)
    _wait(device)
    seconds = (time.perf_counter() - start) / iterations
    graph = our_graph(ours, rows)
    figures["ours"] |= {"s_per_iteration": seconds, "loss_at_end": whole_loss(ours, rows)}
    figures["ours"] |= {"threshold": ours.threshold.item()} | scored(authors, graph, labels, seed)

    start = time.perf_counter()
    theirs = new_theirs(authors, width, seed)
    figures["theirs"] = {"loss_at_start": whole_loss(with_their_weights(theirs, width, device), rows)}
    train_theirs(authors, theirs, data, iterations)
    _wait(device)
    seconds = (time.perf_counter() - start) / iterations
    mirror = with_their_weights(theirs, width, device)
    graph = their_graph(authors, theirs, data)
    figures["theirs"] |= {"s_per_iteration": seconds, "loss_at_end": whole_loss(mirror, rows)}
    figures["theirs"] |= {"threshold": mirror.threshold.item()} | scored(authors, graph, labels, seed)

    figures["same_weights"] = same_weights(authors, theirs.eval(), mirror, rows)
    return figures


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds."""

    def over(values: list[float]) -> dict[str, float | None]:
        return {"mean": mean(values), "std": stdev(values) if len(values) > 1 else None}

    return {
        side: {"loss_at_end": over([run[side]["loss_at_end"] for run in runs])}
        | {
            step: {name: over([run[side][step][name] for run in runs]) for name in ("acc", "nmi", "ari")}
            for step in ("authors_spectral", "our_spectral")
        }
        for side in SIDES
    }


def sampled(features: Path, n: int, seed: int, device: str) -> tuple[Tensor, np.ndarray]:
    """The seeded rows, of unit length on the device, and their labels."""
    with np.load(features) as stored:
        x, y = stored["x"], stored["y"]
    chosen = np.random.default_rng(seed).choice(len(x), n, replace=False)
    return F.normalize(torch.from_numpy(x[chosen]).float().to(device), dim=1), y[chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--authors", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--iterations", type=int, default=PUBLISHED)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rounds", type=int, default=5, help="of the timing")
    parser.add_argument("--device", choices=["cpu", "cuda"], default=_device())
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    per_epoch = options.rows // BATCH
    if options.rows < BATCH or (options.rows > LARGEST_BLOCK and options.rows % LARGEST_BLOCK):
        parser.error(f"--rows must be from {BATCH} to {LARGEST_BLOCK}, or a multiple of {LARGEST_BLOCK}")
    if options.iterations < per_epoch or options.iterations % per_epoch:
        parser.error(f"--iterations must be a multiple of the {per_epoch} of an epoch")
    authors = load_authors(options.authors, options.device)
    rows, _ = sampled(options.features, options.rows, options.seeds[0], options.device)
    record: dict[str, Any] = {
        "machine": {
            "platform": platform.platform(),
            "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
        "features": options.features.name,
        "rows": options.rows,
        "iterations": options.iterations,
        "published_iterations": PUBLISHED,
        "schedule": f"as published, its cosine drawn over {options.iterations} iterations",
        "post_processing": f"top {TOP_K}, {NEIGHBOURS}-NN graph, {VECTORS} vectors (our_spectral: our own)",
        "time": timed(authors, rows, options.rounds, options.device),
        "runs": [],
    }
    print(json.dumps(record["time"]), flush=True)
    for seed in options.seeds:
        rows, labels = sampled(options.features, options.rows, seed, options.device)
        run = compare(authors, rows, labels, seed, options.iterations, options.device)
        print(json.dumps(run), flush=True)
        record["runs"].append(run)
        record["summary"] = summary(record["runs"])
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record["summary"], indent=2))


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    main()

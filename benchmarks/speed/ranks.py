"""Compare several processes that train as one with a single process: gradients, clusters and seconds.

For each objective, the script compares the gradient of all weights of a ResNet-18 for a batch of digits:
two processes (or ``--processes``) compute it on their shares, and one process on the whole batch, in
float64, and in float32 with SiLU instead of ReLU. Then ``ebsc run`` clusters all digits with several
processes and with one, at the same batch size; the script compares the clusters (ARI) and the seconds. All
work runs on the CPU, with one thread per process. If there are fewer cores than processes, the processes
take turns.

python benchmarks/speed/ranks.py --out benchmarks/results/speed/ranks.json
"""

from __future__ import annotations

import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from sides import command, described, keep

OBJECTIVES = ("simclr", "byol", "moco-v3", "barlow-twins", "vicreg", "simsiam")
BATCH = 64
RUN = (
    *("--data", "digits", "--backbone", "resnet10t", "--batch-size", "128", "--precision", "fp32"),
    *("--set", "joint.form=reconstruction"),
)


def gradients(context: Any) -> Iterator[tuple[str, Any]]:
    """Yield the gradient of all trainable parameters as one vector, for each objective and dtype."""
    import torch
    from torch import Tensor

    from ebsc_core.data.views.apply import draw_view
    from ebsc_core.data.views.options import default_views
    from ebsc_core.plugins.interfaces import DataContext
    from ebsc_core.plugins.registry import Kind, Registry
    from ebsc_core.training.sync_batch_norm import sync_norms

    registry = Registry()
    data = registry.find(Kind.DATA, "digits").factory(None, DataContext(Path(".")))
    images, info, single = data.images[:BATCH], data.info(), Tensor.float
    generator = torch.Generator().manual_seed(0)
    # Not channels-last: there torch's own batch norm is some 100 times less exact in float32 on a CPU.
    views = [draw_view(images, default_views(info), generator) for _ in range(2)]
    shares = [view.clone(memory_format=torch.contiguous_format)[context.share(BATCH)] for view in views]
    for dtype in (torch.float32, torch.float64):
        Tensor.float = single if dtype == torch.float32 else Tensor.double  # where losses ask for float32
        for name in OBJECTIVES:
            backbone = registry.find(Kind.BACKBONE, "resnet18")
            objective = registry.find(Kind.OBJECTIVE, name)
            torch.manual_seed(0)
            made = backbone.factory(backbone.options_class(), info)
            made = objective.factory(objective.options_class(), made).train().to(dtype)
            if dtype == torch.float32:
                _smooth(made)
            if context.count > 1:
                sync_norms(made, context)
                made.ranks = context
            network = context.prepare(made)  # which averages as long as it is there
            network(*(view.to(dtype) for view in shares)).loss.backward()
            found = [p.grad.flatten() for p in made.parameters() if p.grad is not None]
            yield f"{name} {str(dtype).removeprefix('torch.')}", torch.cat(found)
    Tensor.float = single


def _smooth(module: Any) -> None:
    """Replace ReLU by SiLU: a rounding error that switches a ReLU moves the gradient by some 1e-3."""
    from torch import nn

    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU):
                setattr(parent, name, nn.SiLU())


def worker(folder: Path) -> None:
    """Compute gradients as one of the processes; the first process then repeats this alone."""
    import torch
    from safetensors.torch import save_file

    from ebsc_core.utils.distributed import SINGLE_PROCESS, DistributedContext

    context = DistributedContext.join(torch.device("cpu"))
    together = dict(gradients(context))
    context.close()
    if context.main:
        save_file(together, folder / "together.safetensors")
        save_file(dict(gradients(SINGLE_PROCESS)), folder / "alone.safetensors")


def agreement(processes: int, folder: Path) -> dict[str, dict[str, float]]:
    """Compute the relative L2 distances of the gradients from those of one process."""
    from safetensors.torch import load_file

    from ebsc_core.utils.launch import launch

    if launch(str(processes), "cpu", [__file__, "--worker", str(folder)]):
        raise SystemExit("the processes failed")
    together, alone = (load_file(folder / f"{name}.safetensors") for name in ("together", "alone"))

    def apart(case: str) -> float:
        one, other = together[case].double(), alone[case].double()
        return float(f"{float((one - other).norm() / other.norm()):.2g}")

    return {
        name: {dtype: apart(f"{name} {dtype}") for dtype in ("float32", "float64")} for name in OBJECTIVES
    }


def clustered(processes: int, epochs: int, seed: int, folder: Path) -> tuple[list[str], dict[str, Any]]:
    """Run ebsc, and return the clusters and figures of the run."""
    out = folder / f"{processes}-{seed}"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    options = (
        "--epochs",
        str(epochs),
        "--seed",
        str(seed),
        "--device",
        "cpu",
        "--cache",
        "none",
        "--out",
        out,
    )
    command = (sys.executable, "-m", "ebsc_cli", "run", *RUN, *options, "--devices", str(processes), "-q")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["processes"] == processes
    with (out / "assignments.csv").open(newline="") as file:
        clusters = [row["cluster"] for row in csv.DictReader(file)]
    return clusters, {
        "scores": metrics["scores"],
        "training_s": metrics["seconds"]["training"],
        "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
    }


def main() -> None:
    parser = command(__doc__ or "")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--worker", type=Path, help="internal: the script starts its processes with it")
    given = parser.parse_args()
    if given.worker:
        return worker(given.worker)
    from sklearn.metrics import adjusted_rand_score

    with tempfile.TemporaryDirectory() as name:
        folder, runs = Path(name), []
        apart = agreement(given.processes, folder)
        for seed in range(given.seeds):
            alone, one = clustered(1, given.epochs, seed, folder)
            shared, several = clustered(given.processes, given.epochs, seed, folder)
            ari = round(float(adjusted_rand_score(alone, shared)), 4)
            runs.append({"seed": seed, "ari": ari, "1": one, str(given.processes): several})
    record = {"processes": given.processes, "gradients": apart, "epochs": given.epochs, "runs": runs}
    print(json.dumps(record, indent=1))
    keep(record | described(), given.out)


if __name__ == "__main__":
    main()

"""Profile a training step, and print two tables in Markdown.

    python benchmarks/speed/step_profile.py [--joint] [--precision bf16] [--device cuda] [--out FILE.json]

The script runs the trainer's own steps of a ResNet-18 with the small stem and SimCLR, on random colour
images. It measures time by stage, and by operator with torch's profiler (the operator's own time, without
the operators that it calls). ``--joint`` runs steps of the joint phase, of the form ``reconstruction`` with
the energy network. Shares are those of this process's CPU time. On CUDA they are those of the device's
time; the script waits for each stage, while a run does not wait.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sides import command, described, keep

if TYPE_CHECKING:
    import torch

LISTED = 12


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--joint", action="store_true")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    work, why = made(options)
    work(1)
    taken = work(options.steps)
    with torch.profiler.profile() as profile:
        work(options.steps)
    kind = "cpu" if options.device == "cpu" else "device"
    own = {event.key: getattr(event, f"self_{kind}_time_total") for event in profile.key_averages()}
    stages, operators = shares(taken), dict(list(shares(own).items())[:LISTED])
    print(f"{options.device}, batch {options.batch}, precision {why}\n")
    for title, found in (("stage", stages), ("operator", operators)):
        print(f"| {title} | share |\n|---|---|")
        print("".join(f"| {name} | {share:.1%} |\n" for name, share in found.items()))
    settings = {name: getattr(options, name) for name in ("joint", "batch", "size", "device")}
    record = {"settings": settings, "precision": why, "stages": stages, "operators": operators}
    keep(described() | record, options.out)


def made(options: argparse.Namespace) -> tuple[Callable[[int], dict[str, float]], str]:
    """Make a function that does steps and returns the seconds of each stage; also return the precision."""
    import torch

    from ebsc_core.config.schema import JointChoice, TrainOptions
    from ebsc_core.data.images.in_memory import ImageSet
    from ebsc_core.data.views.options import COLOR_VIEWS
    from ebsc_core.plugins.interfaces import ImageInfo
    from ebsc_core.training import step as step_module
    from ebsc_core.training.precision import choose_arithmetic
    from ebsc_core.training.trainer import Trainer
    from ebsc_core.utils.device import prepare
    from ebsc_core.utils.progress import Progress
    from ebsc_plugins.backbones.timm_models import TimmBackbone, TimmOptions
    from ebsc_plugins.coefficients.energy import EnergyNetwork, EnergyOptions
    from ebsc_plugins.objectives.simclr import SimCLR

    device = torch.device(options.device)
    prepare(device)
    shape = (options.batch * options.steps, 3, options.size, options.size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8).to(device)
    info = ImageInfo(3, options.size, options.size, (0.5,) * 3, (0.25,) * 3)
    objective = SimCLR(SimCLR.Options(), TimmBackbone("resnet18", TimmOptions(), info))
    objective = objective.to(device, memory_format=torch.channels_last)
    chosen = choose_arithmetic(objective, images[: options.batch].shape, device, 0, options.precision)
    model = EnergyNetwork(EnergyOptions(), objective.width).to(device) if options.joint else None
    watch = Watch(device)
    step_module.apply_view = watch.timing("views", step_module.apply_view)
    objective.backbone.forward = watch.timing("backbone", objective.backbone.forward)
    step = step_module.JointStep(
        objective,
        model,
        device,
        COLOR_VIEWS,
        JointChoice(form="reconstruction"),
        options.joint,
        "embeddings",
        chosen.bf16,
    )
    source = ImageSet("random", images, [str(i) for i in range(len(images))])
    trainer = Trainer(step, source, TrainOptions(), options.batch, 10, 0, Progress())
    optimizer, _ = trainer._optimizer(10**6)

    def work(steps: int) -> dict[str, float]:
        watch.seconds.clear()
        trainer.steps = steps
        for batch in trainer._batches():
            losses = watch.timing("losses", step)(batch.images, batch.parameters, options.joint)
            optimizer.zero_grad()
            watch.timing("backward", losses.total.backward)()
            watch.timing("optimiser", optimizer.step)()
        watch.seconds["losses"] -= watch.seconds["views"] + watch.seconds["backbone"]
        return dict(watch.seconds)

    return work, chosen.reasons["precision"]


class Watch:
    """Measure seconds by name."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def timing(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function, and add up its seconds."""

        def call(*arguments: Any) -> Any:
            start = self._now()
            result = function(*arguments)
            self.seconds[name] += self._now() - start
            return result

        return call

    def _now(self) -> float:
        import torch

        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()


def shares(taken: dict[str, float]) -> dict[str, float]:
    """Compute the shares of the sum, the largest first."""
    whole = sum(taken.values())
    return {name: round(taken[name] / whole, 4) for name in sorted(taken, key=lambda name: -taken[name])}


if __name__ == "__main__":
    main()

"""Compute test cases as one of several processes; the first process then repeats them alone.

``worker.py FOLDER`` needs the variables of a launcher. It writes ``<rank>.safetensors`` and
``alone.safetensors``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import save_file
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from ebsc_core.config.schema import JointChoice, TrainOptions
from ebsc_core.data.images.in_memory import ImageSet
from ebsc_core.data.views.apply import apply_view, draw_view
from ebsc_core.data.views.options import COLOR_VIEWS
from ebsc_core.data.views.parameters import ViewParameters, draw_parameters
from ebsc_core.plugins.interfaces import Backbone, Objective
from ebsc_core.training import extract, step
from ebsc_core.training import trainer as joint
from ebsc_core.training.step import JointStep
from ebsc_core.training.sync_batch_norm import sync_norms
from ebsc_core.training.trainer import Trainer
from ebsc_core.utils.distributed import SINGLE_PROCESS, DistributedContext
from ebsc_core.utils.errors import DataError, EbscError
from ebsc_core.utils.progress import Progress
from ebsc_plugins.coefficients.energy import EnergyNetwork, EnergyOptions
from ebsc_plugins.objectives.barlow_twins import BarlowTwins
from ebsc_plugins.objectives.byol import BYOL
from ebsc_plugins.objectives.moco_v3 import MoCoV3
from ebsc_plugins.objectives.simclr import SimCLR
from ebsc_plugins.objectives.simsiam import SimSiam
from ebsc_plugins.objectives.vicreg import VICReg

OBJECTIVES = (SimCLR, BYOL, MoCoV3, BarlowTwins, VICReg, SimSiam)
BATCH = 16


class Detached(DistributedContext):
    """Gather rows such that gradients reach only this process's rows, as in the communication library."""

    def gather(self, rows: Tensor) -> Tensor:
        every = super().gather(rows.detach()).clone()
        every[self.share(len(every))] = rows
        return every


class Net(Backbone):
    """Define a small backbone with both kinds of batch norm."""

    width = 16

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, bias=False),
            BatchNormAct2d(16),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def objective_of(kind: type[Objective]) -> Objective:
    torch.manual_seed(0)
    return kind(kind.Options(hidden=16, width=8), Net()).train()


def image_set(n: int) -> ImageSet:
    return ImageSet("images", images_of(n), [str(i) for i in range(n)])


def images_of(n: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    patches = torch.randint(0, 256, (n, 3, 3, 3), dtype=torch.uint8, generator=generator)
    return patches.repeat_interleave(4, 2).repeat_interleave(4, 3)


@contextmanager
def float64() -> Iterator[None]:
    """Compute in float64 where the code asks for float32, except random draws and the pixels of views."""
    plain = Tensor.float

    def draw(*arguments: Any) -> ViewParameters:
        with patch.object(Tensor, "float", plain):
            return draw_parameters(*arguments)

    def view(*arguments: Any) -> Tensor:
        with patch.object(Tensor, "float", plain):
            return apply_view(*arguments).double()

    with (
        patch.object(Tensor, "float", Tensor.double),
        patch.object(joint, "draw_parameters", draw),
        patch.object(step, "apply_view", view),
    ):
        yield


def together(objective: Objective, context: DistributedContext) -> nn.Module:
    if context.count > 1:
        sync_norms(objective, context)
        objective.ranks = context
    return context.prepare(objective)


def gradients(kind: type[Objective], context: DistributedContext, dtype: torch.dtype) -> dict[str, Tensor]:
    objective = objective_of(kind).to(dtype)
    network = together(objective, context)
    generator = torch.Generator().manual_seed(1)
    images = images_of(BATCH)
    a, b = (draw_view(images, COLOR_VIEWS, generator).to(dtype)[context.share(BATCH)] for _ in range(2))
    with float64() if dtype == torch.float64 else nullcontext():
        views = network(a, b)
        views.loss.backward()
    found = {f"gradient.{n}": p.grad for n, p in objective.named_parameters() if p.grad is not None}
    found |= {f"buffer.{n}": b.to(dtype) for n, b in objective.named_buffers() if "running" in n}
    return found | {
        "loss": views.loss.detach(),
        "features": torch.cat(views.features).detach(),
        "embeddings": torch.cat(views.embeddings).detach(),
    }


def objectives(context: DistributedContext) -> Iterator[tuple[str, dict[str, Tensor]]]:
    for kind in OBJECTIVES:
        for dtype in (torch.float32, torch.float64):
            yield f"{kind.__name__}.{str(dtype).removeprefix('torch.')}", gradients(kind, context, dtype)
    detached = Detached(context.index, context.count)
    yield "detached.float64", gradients(SimCLR, detached, torch.float64)


def step_of(context: DistributedContext, kind: type[Objective], dtype: torch.dtype) -> JointStep:
    objective = objective_of(kind).to(dtype)
    torch.manual_seed(0)
    model = EnergyNetwork(EnergyOptions(hidden=8), 8).to(dtype)
    choice = JointChoice.model_validate({"form": "reconstruction", "start": 0.5, "weight": 0.1})
    views = COLOR_VIEWS.model_copy(update={"noise": 0.05})
    made = JointStep(objective, model, torch.device("cpu"), views, choice, True, "embeddings")
    made.join(context)
    return made


def joint_gradients(context: DistributedContext, dtype: torch.dtype) -> dict[str, Tensor]:
    """Compute the gradients of a joint step."""
    made = step_of(context, SimCLR, dtype)
    images, share = images_of(BATCH), context.share(BATCH)
    generator = torch.Generator().manual_seed(1)
    drawn = [joint.draw_parameters(images.shape, made.views, generator).rows(share) for _ in range(2)]
    losses = made(images[share], (drawn[0], drawn[1]), joint=True)
    losses.total.backward()
    assert made.model is not None
    context.mean_([p.grad for p in made.model.parameters() if p.grad is not None])
    both = nn.ModuleDict({"objective": made.objective, "model": made.model})
    found = {f"gradient.{n}": p.grad for n, p in both.named_parameters() if p.grad is not None}
    return found | {"total": losses.total.detach(), "figures": losses.figures}


def joint_steps(context: DistributedContext) -> Iterator[tuple[str, dict[str, Tensor]]]:
    yield "joint.float32", joint_gradients(context, torch.float32)
    with float64():
        yield "joint.float64", joint_gradients(context, torch.float64)


def training(context: DistributedContext) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the weights after four steps; two of them are joint steps."""
    for kind in (SimCLR, BYOL):
        with float64():
            made = step_of(context, kind, torch.float64)
            options = TrainOptions(epochs=2, lr=1e-2)
            trainer = Trainer(made, image_set(2 * BATCH), options, BATCH, 2, 0, Progress())
            trainer.fit()
        assert made.model is not None
        both = nn.ModuleDict({"objective": made.objective, "model": made.model})
        history = [[epoch.loss, epoch.effective_rank, epoch.joint_error or 0.0] for epoch in trainer.history]
        yield f"trained.{kind.__name__}", {f"weight.{n}": p.detach() for n, p in both.named_parameters()}
        yield f"trained.{kind.__name__}", {"history": torch.tensor(history)}


def extraction(context: DistributedContext) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Extract 37 images in blocks of 2 times 5 (one process: 5): blocks and shares differ in size."""
    objective = objective_of(BYOL)
    with patch.object(extract, "BATCH", 5):
        blocks = list(
            extract.feature_blocks(
                objective.backbone, objective, image_set(37), torch.device("cpu"), Progress(), context
            )
        )
    embeddings = [block.embeddings for block in blocks if block.embeddings is not None]
    features = torch.cat([block.features for block in blocks])
    yield "extracted", {"features": features, "embeddings": torch.cat(embeddings)}


def means(context: DistributedContext) -> Iterator[tuple[str, dict[str, Tensor]]]:
    tensors = [torch.full((2, 3), float(context.index)), torch.tensor(4.0 * context.index)]
    context.mean_(tensors)
    yield "mean", {str(i): tensor for i, tensor in enumerate(tensors)}


def words(context: DistributedContext) -> None:
    """Check the messages between processes that are not tensors."""
    assert context.broadcast(f"from {context.index}") == "from 0"
    assert context.in_turn(lambda: context.index) == context.index
    assert context.same("this")
    assert not context.same(f"this of {context.index}")
    for failing, expected in ((0, "spilt tea"), (1, "process 1 of 2: spilt tea")):
        said = ""
        try:
            with context.synchronized_errors():
                if context.index == failing:
                    raise DataError("spilt tea")
        except EbscError as error:
            said = str(error)
        assert said == expected


def everything(context: DistributedContext) -> dict[str, Tensor]:
    found = {}
    for cases in (objectives, joint_steps, training, extraction, means):
        for case, tensors in cases(context):
            found |= {f"{case}.{name}": tensor.contiguous().clone() for name, tensor in tensors.items()}
    return found


def main(folder: Path) -> None:
    context = DistributedContext.join(torch.device("cpu"))
    words(context)
    save_file(everything(context), folder / f"{context.index}.safetensors")
    context.close()
    if context.main:
        save_file(everything(SINGLE_PROCESS), folder / "alone.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))

"""A step never asks for a value: a GPU, which is told its work ahead of time, would be waited for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ebsc_core.config.schema import JointChoice, TrainOptions
from ebsc_core.data.images.in_memory import ImageSet
from ebsc_core.data.views.options import COLOR_VIEWS
from ebsc_core.plugins.interfaces import Backbone, Objective, TrainableCoefficientModel
from ebsc_core.training.step import JointStep
from ebsc_core.training.trainer import Trainer
from ebsc_core.utils.progress import Progress
from ebsc_plugins.coefficients.energy import EnergyNetwork, EnergyOptions
from ebsc_plugins.coefficients.senet import SENet, SENetOptions
from ebsc_plugins.objectives.barlow_twins import BarlowTwins
from ebsc_plugins.objectives.byol import BYOL
from ebsc_plugins.objectives.moco_v3 import MoCoV3
from ebsc_plugins.objectives.simclr import SimCLR
from ebsc_plugins.objectives.simsiam import SimSiam
from ebsc_plugins.objectives.vicreg import VICReg

BATCH = 16
OBJECTIVES = [SimCLR, BYOL, MoCoV3, SimSiam, BarlowTwins, VICReg]


class Reads(TorchDispatchMode):
    """Counts what needs a value, or a shape that depends on values, on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if masks or name in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


class Tiny(Backbone):
    def __init__(self) -> None:
        super().__init__()
        self.width = 16
        self.layers = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).mean((2, 3))


def trainer(kind: type[Objective], steps: int, device: str = "cpu", **joint: Any) -> Trainer:
    objective = kind(kind.Options(hidden=16, width=8), Tiny())
    model: TrainableCoefficientModel = EnergyNetwork(EnergyOptions(hidden=8), 8)
    if joint.pop("model", None) == "senet":
        model = SENet(SENetOptions(hidden=8, width=8), 8)
    pixels = torch.randint(0, 256, (steps * BATCH, 3, 12, 12), dtype=torch.uint8)
    step = JointStep(
        objective=objective.to(device),
        model=model.to(device),
        device=torch.device(device),
        views=COLOR_VIEWS.model_copy(update={"blur_prob": 0.5, "noise": 0.1, "exact_hue": True}),
        joint=JointChoice(**{"form": "reconstruction", "start": 0.5} | joint),
        whiten=True,
        express="embeddings",
    )
    return Trainer(
        step=step,
        images=ImageSet("noise", pixels, [str(i) for i in range(len(pixels))]),
        options=TrainOptions(epochs=2),
        batch_size=BATCH,
        n_clusters=2,
        seed=0,
        progress=Progress(),
    )


def reads(kind: type[Objective], steps: int, **joint: Any) -> list[str]:
    made = trainer(kind, steps, **joint)
    with Reads() as seen:
        made.fit()
    return seen.seen


@pytest.mark.parametrize("kind", OBJECTIVES)
@pytest.mark.parametrize("joint", [{}, {"model": "senet"}], ids=["energy", "senet"])
def test_twice_the_steps_read_no_more_values(kind: type[Objective], joint: dict[str, Any]) -> None:
    once = reads(kind, 3, **joint)
    assert "_local_scalar_dense" in once  # the loss, at the end of each epoch
    assert reads(kind, 6, **joint) == once


def test_a_value_that_a_step_reads_is_noticed() -> None:
    class Curious(SimCLR):
        def loss(self, a: Tensor, b: Tensor) -> Tensor:
            return super().loss(a[a[:, 0] > -2], b)

    assert len(reads(Curious, 6)) > len(reads(Curious, 3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("kind", OBJECTIVES)
def test_a_gpu_is_not_waited_for(kind: type[Objective]) -> None:
    """Images are in host memory here, so that they are on their way as well."""
    made = trainer(kind, 4, "cuda")
    optimizer, schedule = made._optimizer(8)
    for joint in (False, True):
        try:
            for batch in made._batches():
                made.step(batch.images, batch.parameters, joint).total.backward()
                optimizer.step()
                schedule.step()
                made.step.objective.after_step()
                # From the second step on: the first sets up the optimiser.
                torch.cuda.set_sync_debug_mode("error")
        finally:
            torch.cuda.set_sync_debug_mode("default")

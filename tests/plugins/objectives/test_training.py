"""Each objective trains a real network on real images."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits

from ebsc_core.config.schema import JointChoice, TrainOptions
from ebsc_core.data.images.in_memory import ImageSet
from ebsc_core.data.views.options import GRAY_VIEWS
from ebsc_core.plugins.interfaces import ImageInfo, Objective
from ebsc_core.training.step import JointStep
from ebsc_core.training.trainer import Epoch, Trainer
from ebsc_core.utils.progress import Progress
from ebsc_plugins.backbones.timm_models import TimmBackbone, TimmOptions
from ebsc_plugins.objectives.barlow_twins import BarlowTwins
from ebsc_plugins.objectives.byol import BYOL
from ebsc_plugins.objectives.moco_v3 import MoCoV3
from ebsc_plugins.objectives.simclr import SimCLR
from ebsc_plugins.objectives.simsiam import SimSiam
from ebsc_plugins.objectives.vicreg import VICReg


def digits(count: int) -> ImageSet:
    pixels = torch.from_numpy(load_digits().images[:count] * 15.9375).to(torch.uint8).unsqueeze(1)
    return ImageSet("digits", pixels, [str(i) for i in range(count)])


def train(kind: type[Objective], images: ImageSet, epochs: int) -> list[Epoch]:
    info = ImageInfo(1, 8, 8, (0.3,), (0.4,))
    objective = kind(kind.Options(), TimmBackbone("resnet10t", TimmOptions(), info))
    step = JointStep(
        objective=objective,
        model=None,
        device=torch.device("cpu"),
        views=GRAY_VIEWS,
        joint=JointChoice(),
        whiten=False,
        express="embeddings",
    )
    trainer = Trainer(
        step=step,
        images=images,
        options=TrainOptions(epochs=epochs),
        batch_size=64,
        n_clusters=10,
        seed=0,
        progress=Progress(),
    )
    trainer.fit()
    return trainer.history


@pytest.mark.parametrize("kind", [SimCLR, BYOL, MoCoV3, SimSiam, BarlowTwins, VICReg])
def test_the_loss_falls_and_nothing_collapses(kind: type[Objective]) -> None:
    history = train(kind, digits(384), epochs=4)
    first, last = history[0], history[-1]
    assert last.loss < first.loss - 0.1 * max(1, abs(first.loss))
    # Of 64 rows. Without a predictor (SimSiam, BYOL) or redundancy (Barlow Twins) it falls under 22.
    assert last.effective_rank > 28

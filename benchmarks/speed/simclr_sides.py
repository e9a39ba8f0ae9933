"""Define the sides of ``simclr.py``: their preparation, and the timed work."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader

SIZE, PRODUCT = 32, 2048
Work = Callable[[], dict[str, Any]]


def ours(precision: str, stem: str, batch: int, steps: int, device: str) -> Work:
    """Prepare the trainer of a run, one epoch at a time."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ebsc_core.config.schema import JointChoice, TrainOptions
    from ebsc_core.data.images.in_memory import ImageSet
    from ebsc_core.data.views.options import COLOR_VIEWS
    from ebsc_core.plugins.interfaces import ImageInfo
    from ebsc_core.training.precision import Trial, choose_arithmetic
    from ebsc_core.training.state import TrainingState
    from ebsc_core.training.step import JointStep
    from ebsc_core.training.trainer import Trainer
    from ebsc_core.utils.device import prepare
    from ebsc_core.utils.progress import Progress
    from ebsc_plugins.backbones.timm_models import TimmBackbone, TimmOptions
    from ebsc_plugins.objectives.simclr import SimCLR

    home = torch.device(device)
    prepare(home)
    info = ImageInfo(3, SIZE, SIZE, (0.5,) * 3, (0.25,) * 3)
    backbone = TimmBackbone("resnet18", TimmOptions(stem=stem == "cifar"), info)
    objective = SimCLR(SimCLR.Options(), backbone).to(home, memory_format=torch.channels_last)
    images = random_images(batch * steps).to(home)
    with FlopCounterMode(display=False) as counter:
        Trial(objective, images[:2].shape, home)(False)
    # The choice is that for a training of 200 epochs on 50,000 images.
    chosen = choose_arithmetic(objective, images[:batch].shape, home, 200 * 50_000 // batch, precision)
    step = JointStep(objective, None, home, COLOR_VIEWS, JointChoice(), False, "embeddings", chosen.bf16)
    source = ImageSet("random", images, [str(i) for i in range(len(images))])
    trainer = Trainer(step, source, TrainOptions(epochs=1), batch, 10, 0, Progress())
    trainer.optimizer, trainer.schedule = trainer._optimizer(10**6)
    told = {
        "flops": counter.get_total_flops() * batch * steps / 2,
        "precision": "bf16" if chosen.bf16 else "fp32",
        "why": chosen.reasons,
    }

    def work() -> dict[str, Any]:
        trainer.state = TrainingState()
        return told | {"loss": trainer._epoch("warm-up", 0).loss}

    return work


def lightlys(best: bool, workers: int, stem: str, batch: int, steps: int, device: str) -> Work:
    """Prepare the loop of lightly's SimCLR example, with our learning rate and colour jitter."""
    import torch
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform
    from torch import nn
    from torchvision.models import resnet18

    from ebsc_core.utils.device import prepare

    prepare(torch.device(device))
    network = resnet18()
    network.fc = nn.Identity()
    if stem == "cifar":
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    model = nn.Sequential(network, SimCLRProjectionHead(512, 512, 128)).to(device)
    transform = SimCLRTransform(input_size=SIZE, cj_strength=0.5, min_scale=0.2, gaussian_blur=0.0)
    loader = loader_of(transform, batch, steps, workers)
    criterion = NTXentLoss(temperature=0.2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)
    if best:
        model = model.to(memory_format=torch.channels_last)

    def losses() -> Iterable[torch.Tensor]:
        for _, views, _ in loader:
            a, b = (placed(view, device, best) for view in views)
            with torch.autocast(device, torch.bfloat16, enabled=best):
                yield criterion(model(a), model(b))

    return lambda: trained(losses(), optimizer)


def solo_learns(
    best: bool, checkout: str, workers: int, stem: str, batch: int, steps: int, device: str
) -> Work:
    """Prepare solo-learn's training step and transforms, with its CIFAR-10 configuration."""
    sys.path.insert(0, checkout)
    warnings.simplefilter("ignore")
    import torch
    from omegaconf import OmegaConf
    from solo.args.pretrain import parse_cfg
    from solo.data.pretrain_dataloader import (
        FullTransformPipeline,
        NCropAugmentation,
        build_transform_pipeline,
    )
    from solo.methods import METHODS

    from ebsc_core.utils.device import prepare

    prepare(torch.device(device))
    folder = Path(checkout) / "scripts" / "pretrain" / "cifar"
    settings = OmegaConf.load(folder / "simclr.yaml")
    settings.augmentations = OmegaConf.load(folder / "augmentations" / "symmetric.yaml")
    settings.augmentations[0].gaussian_blur.prob = 0
    settings.optimizer.batch_size = batch
    settings = parse_cfg(settings)
    transform = FullTransformPipeline(
        [
            NCropAugmentation(build_transform_pipeline("cifar10", each), each.num_crops)
            for each in settings.augmentations
        ]
    )
    if stem == "imagenet":
        settings.data.dataset = "custom"
    module = METHODS["simclr"](settings).to(device)
    loader = loader_of(transform, batch, steps, workers)
    module.scheduler = "none"  # their scheduler asks the Trainer for the number of steps
    optimizer = module.configure_optimizers()
    if not best:
        module.no_channel_last = True
    else:
        module = module.to(memory_format=torch.channels_last)

    def losses() -> Iterable[torch.Tensor]:
        for number, (indices, views, targets) in enumerate(loader):
            on_device = [view.to(device, non_blocking=True) for view in views]
            with torch.autocast(device, torch.bfloat16, enabled=best):
                yield module.training_step((indices.to(device), on_device, targets.to(device)), number)

    return lambda: trained(losses(), optimizer)


def trained(losses: Iterable[torch.Tensor], optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Train for an epoch of their loop; return the last loss when the device has finished."""
    for loss in losses:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {"loss": loss.item()}


def products(dtype: str, device: str) -> Work:
    """Prepare a matrix product that is large enough to run at full speed."""
    import torch

    from ebsc_core.utils.device import prepare

    prepare(torch.device(device))
    side = PRODUCT if device == "cpu" else 4 * PRODUCT
    repeats = 1 if device == "cpu" else 50
    matrix = torch.randn(side, side, device=device, dtype=getattr(torch, dtype))

    def work() -> dict[str, float]:
        for _ in range(repeats):
            result = matrix @ matrix
        return {"flops": 2 * side**3 * repeats, "value": float(result[0, 0])}

    return work


def random_images(count: int) -> torch.Tensor:
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)


def loader_of(transform: Callable[..., Any], batch: int, steps: int, workers: int) -> DataLoader:
    """Make a loader as both libraries do: it turns PIL images into their index, views and label."""
    from torch.utils.data import DataLoader
    from torchvision.transforms.functional import to_pil_image

    images = [to_pil_image(image) for image in random_images(batch * steps)]
    return DataLoader(
        Transformed(images, transform),
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


class Transformed:
    """Hold images in memory, and transform an image when the loader asks for it."""

    def __init__(self, images: list[Any], transform: Callable[..., Any]) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[int, Any, int]:
        return index, self.transform(self.images[index]), index % 10


def placed(view: torch.Tensor, device: str, channels_last: bool) -> torch.Tensor:
    import torch

    form = torch.channels_last if channels_last else torch.contiguous_format
    return view.to(device, non_blocking=True, memory_format=form)

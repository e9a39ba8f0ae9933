"""Train a ResNet-18 with labels: how much the images tell, whatever the method.

    python benchmarks/gpu/supervised.py DATA [--epochs 20]

``DATA`` holds ``cifar10-train.npz`` and ``cifar10-test.npz`` from ``unpack.py``. On the original CIFAR-10,
such a training reaches about 94 %; what is missing here is what the JPEG files have lost.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

BATCH, PADDING = 256, 4
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    (images, labels), (held_out, expected) = (loaded(options.data, s, device) for s in ("train", "test"))
    model = small_resnet().to(device, memory_format=torch.channels_last)
    train(model, images, labels, options.epochs)
    model.eval()
    with torch.no_grad():
        found = torch.cat([model(block).argmax(dim=1) for block in held_out.split(1000)])
    print(f"{options.epochs} epochs: {float((found == expected).float().mean()):.1%} of the test images")


def loaded(data: Path, split: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Load normalised images ``(N, 3, 32, 32)`` and labels ``(N,)``."""
    with np.load(data / f"cifar10-{split}.npz") as stored:
        images, labels = (torch.from_numpy(stored[name]).to(device) for name in ("images", "labels"))
    mean, std = (torch.tensor(values, device=device) for values in (MEAN, STD))
    return ((images / 255 - mean) / std).permute(0, 3, 1, 2), labels.long()


def small_resnet() -> nn.Module:
    """Build timm's ResNet-18 with the stem for small images: one 3×3 convolution, no pooling."""
    model = timm.create_model("resnet18", num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    """Train with SGD, one cycle of the learning rate, random shifts and flips, and smoothed labels."""
    steps = len(images) // BATCH
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=epochs * steps, pct_start=0.2)
    for _ in range(epochs):
        order = torch.randperm(len(images), device=images.device)
        for chosen in order[: steps * BATCH].split(BATCH):
            with torch.autocast(images.device.type, torch.bfloat16):
                loss = F.cross_entropy(model(moved(images[chosen])), labels[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def moved(images: Tensor) -> Tensor:
    """Shift each image ``(B, C, H, W)`` by up to four pixels, and mirror half of them."""
    n, _, height, width = images.shape
    device, padded = images.device, F.pad(images, (PADDING,) * 4, mode="reflect")
    rows = (
        torch.randint(2 * PADDING + 1, (n, 1, 1), device=device)
        + torch.arange(height, device=device)[:, None]
    )
    columns = torch.arange(width, device=device).expand(n, 1, width)
    columns = torch.where(torch.rand(n, 1, 1, device=device) < 0.5, columns, width - 1 - columns)
    columns = columns + torch.randint(2 * PADDING + 1, (n, 1, 1), device=device)
    picked = padded.permute(0, 2, 3, 1)[torch.arange(n, device=device).view(n, 1, 1), rows, columns]
    return picked.permute(0, 3, 1, 2)


if __name__ == "__main__":
    main()

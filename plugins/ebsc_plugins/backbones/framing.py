"""Bring images to the size that the weights of a network were trained for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Framing:
    """Scale images and crop their centre, as timm's transform for evaluation does with one image."""

    size: int
    """The side of the result, in pixels."""
    shorter: int
    """The length to which the shorter side is scaled before the crop, at least ``size``."""
    mode: str = "bicubic"
    squash: bool = False
    """Whether both sides are scaled to ``shorter``, which changes the proportions."""

    @classmethod
    def of(cls, config: Mapping[str, Any], size: int | None) -> Framing:
        """Read timm's data configuration; ``size`` replaces its side of the images."""
        size = size or min(config["input_size"][1:])
        # torch has two filters with antialiasing; timm's others are nearer to the bicubic one.
        mode = "bilinear" if config["interpolation"] == "bilinear" else "bicubic"
        return cls(size, math.floor(size / config["crop_pct"]), mode, config["crop_mode"] == "squash")

    def describe(self) -> str:
        """Describe in a few words what is done."""
        cropped = f", the centre of {self.shorter}" if self.shorter > self.size else ""
        return f"images brought to {self.size}x{self.size} ({self.mode}{cropped})"

    def __call__(self, images: Tensor) -> Tensor:
        """Return images ``(B, C, size, size)`` of images ``(B, C, H, W)`` in [0, 1], on their device."""
        height, width = images.shape[2:]
        scaled = (self.shorter, self.shorter)
        if not self.squash:
            short = min(height, width)
            scaled = (height * self.shorter // short, width * self.shorter // short)
        if scaled != (height, width):
            images = F.interpolate(images, scaled, mode=self.mode, antialias=True, align_corners=False)
            images = images.clamp(0, 1)  # the bicubic filter overshoots at edges
        top, left = (round((side - self.size) / 2) for side in scaled)
        return images[:, :, top : top + self.size, left : left + self.size]

"""The raw pixels as features."""

from __future__ import annotations

from torch import Tensor

from ebsc_core import Backbone, ImageInfo, Options


class Identity(Backbone):
    """Pixels in [0, 1], flattened to ``(B, C·H·W)``; for shallow methods and as a baseline."""

    def __init__(self, options: Options, info: ImageInfo) -> None:
        super().__init__()
        self.width = info.channels * info.height * info.width

    def describe(self) -> str:
        return f"raw pixels, {self.width} features"

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)

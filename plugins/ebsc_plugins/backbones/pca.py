"""Use the principal components of the raw pixels as features."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from ebsc_core import Backbone, ComponentError, ImageInfo, Options
from ebsc_plugins.backbones.principal import BLOCK, fitting_images, principal_directions

COMPONENTS = 500


class PCAOptions(Options):
    """Configure the principal components."""

    components: int | None = Field(None, ge=1)
    """The number of principal components, at most the number of images. The default is 500, or one per
    pixel if images have fewer pixels."""
    centre: bool = True
    """Subtract the mean image first, as PCA does in statistics. Without this, subspaces through the origin
    remain subspaces through the origin."""
    whiten: bool = False
    """Every component is scaled to variance 1."""
    fit_images: int = Field(10_000, ge=1)
    """PCA is fitted to this many images, evenly spaced over the data set, or to all if there are fewer. Of
    images that are streamed, it gets at most 10,000."""


class PCA(Backbone):
    """Flatten pixels in [0, 1] and project them on their leading principal directions: ``(B, components)``.

    If all images take part in the fit, signs and values agree with scikit-learn's ``PCA``. A component is 0
    if the fitted images do not vary in it, with or without whitening.
    """

    Options = PCAOptions
    mean: Tensor
    directions: Tensor

    def __init__(self, options: PCAOptions, info: ImageInfo) -> None:
        super().__init__()
        self.options = options
        self.pixels = info.channels * info.height * info.width
        self.width = min(COMPONENTS, self.pixels) if options.components is None else options.components
        if self.width > self.pixels:
            raise ComponentError(
                f"backbone.components is {self.width} but the images have only {self.pixels} values "
                f"({info.channels}x{info.height}x{info.width}); ask for no more than that"
            )
        # The buffers hold NaN until the fit, so that features of an unfitted backbone are noticed.
        self.register_buffer("mean", torch.full((self.pixels,), torch.nan))
        self.register_buffer("directions", torch.full((self.pixels, self.width), torch.nan))

    def describe(self) -> str:
        how = ("" if self.options.centre else ", not centred") + (", whitened" if self.options.whiten else "")
        return f"{self.width} principal components of {self.pixels} pixel values{how}"

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        chosen = fitting_images(images, self.width, self.options.fit_images)
        blocks = [block.flatten(1) for block in chosen.split(BLOCK)]
        mean = torch.zeros(self.pixels, dtype=torch.float64)
        if self.options.centre:
            mean = torch.stack([block.sum(dim=0) for block in blocks]).sum(dim=0).double() / (
                255 * len(chosen)
            )
        rows = (block.double() / 255 - mean for block in blocks)
        directions, squares = principal_directions(rows, len(chosen), self.width)
        if self.options.whiten:
            directions *= (max(len(chosen) - 1, 1) / torch.where(squares > 0, squares, torch.inf)).sqrt()
        self.mean.copy_(mean)
        self.directions.copy_(directions)

    def forward(self, images: Tensor) -> Tensor:
        return (images.flatten(1) - self.mean) @ self.directions

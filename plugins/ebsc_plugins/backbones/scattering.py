"""Use wavelet scattering coefficients, or their principal components, as features."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ebsc_core import Backbone, ComponentError, ImageInfo, Options, missing_package
from ebsc_plugins.backbones.principal import BLOCK, fitting_images, principal_directions

# The shorter path, kymatio.torch, also imports the spherical transform, which fails with today's SciPy.
FRONTEND = "kymatio.scattering2d.frontend.torch_frontend"
SCALES, ANGLES = 3, 8
CHANNELS = 1 + SCALES * ANGLES + ANGLES**2 * SCALES * (SCALES - 1) // 2
# These are the luma weights of ITU-R BT.601; PIL converts colour to grey with them as well.
LUMA = (0.299, 0.587, 0.114)
# If all coefficients of a channel are below this value, they are rounding errors of an image without
# structure (4e-8 measured), and the division by their maximum would scale them up to 1. The smallest
# maximum measured in real images is 3e-5, in the darkest faces of Extended Yale B.
SILENCE = 1e-5


class ScatteringOptions(Options):
    """Configure the scattering features."""

    size: int = Field(32, ge=16, multiple_of=8)
    """Images are scaled to this side, in pixels, before the transform."""
    components: int = Field(500, ge=0)
    """The number of principal components, at most the number of images; 0 keeps all coefficients."""
    fit_images: int = Field(10_000, ge=1)
    """PCA is fitted to this many images, evenly spaced over the data set, or to all if there are fewer. Of
    images that are streamed, it gets at most 10,000."""


class Scattering(Backbone):
    """Compute two orders of a scattering transform (Bruna and Mallat, arXiv:1203.1513) and uncentred PCA.

    EnSC (You, Li, Robinson, Vidal, CVPR 2016) and SENet (Zhang, You, Vidal, Li, CVPR 2021) use these
    features. Images have 32×32 pixels. Wavelets of 3 scales and 8 angles give 217 channels of 4×4
    coefficients. Each channel is divided by its largest absolute value, and the 3,472 coefficients of an
    image are projected on 500 principal directions. The projection is not centred, so subspaces through the
    origin remain such.

    The papers use grey images, so colour is converted to grey here. A transform of each colour channel took
    three times as long and gave no more accuracy (2,000 images of CIFAR-10: 5-NN accuracy 0.335 both ways).

    The directions come from 10,000 images, since the fit transforms its images once more. On MNIST these
    capture 0.9961 of the 70,000 images' squared length, those of all images 0.9964.
    """

    Options = ScatteringOptions
    directions: Tensor | None

    def __init__(self, options: ScatteringOptions, info: ImageInfo) -> None:
        super().__init__()
        self.options = options
        self.coefficients = CHANNELS * (options.size >> SCALES) ** 2
        self.width = options.components or self.coefficients
        if self.width > self.coefficients:
            raise ComponentError(
                f"backbone.components is {self.width} but images of {options.size}x{options.size} have only "
                f"{self.coefficients} coefficients; lower it or raise backbone.size"
            )
        self.transform = _transform(options.size)
        # The buffer holds NaN until the fit, so that features of an unfitted backbone are noticed.
        unknown = torch.full((self.coefficients, self.width), torch.nan)
        self.register_buffer("directions", unknown if options.components else None)

    def describe(self) -> str:
        size, kept = self.options.size, self.options.components
        components = f", {kept} principal components" if kept else ""
        return f"scattering at {size}x{size}, {self.coefficients} coefficients{components}"

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        if self.directions is None:
            return
        chosen = fitting_images(images, self.width, self.options.fit_images)
        blocks = self._blocks(chosen, self.directions.device)
        self.directions.copy_(principal_directions(blocks, len(chosen), self.width)[0])

    def _blocks(self, images: Tensor, device: torch.device) -> Iterator[Tensor]:
        for block in images.split(BLOCK):
            yield self.scatter(block.to(device).float().div_(255))

    def forward(self, images: Tensor) -> Tensor:
        coefficients = self.scatter(images)
        return coefficients if self.directions is None else coefficients @ self.directions

    def scatter(self, images: Tensor) -> Tensor:
        """Compute coefficients ``(B, 217·h·w)`` of images ``(B, C, H, W)``.

        The largest absolute value of every channel is 1.
        """
        size = self.options.size
        if images.shape[1] == 3:
            images = (images * images.new_tensor(LUMA).view(3, 1, 1)).sum(dim=1, keepdim=True)
        if images.shape[2:] != (size, size):
            images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
        channels = self.transform(images[:, 0].contiguous()).flatten(2)
        return (channels / channels.abs().amax(dim=2, keepdim=True).clamp_min(SILENCE)).flatten(1)


def _transform(size: int) -> nn.Module:
    try:
        frontend = import_module(FRONTEND)
    except ImportError as error:
        raise missing_package("backbone 'scattering'", "kymatio", "scattering", error) from None
    transform: nn.Module = frontend.ScatteringTorch2D(J=SCALES, shape=(size, size), L=ANGLES, max_order=2)
    for name, wavelet in list(transform.named_buffers()):  # constants: checkpoints do not need them
        transform.register_buffer(name, wavelet, persistent=False)
    return transform

"""Random views of images, drawn for a whole batch at once on its device.

Every image of a batch gets its own parameters. Crop, flip, rotation and anisotropic scaling are one
``grid_sample``; brightness, contrast, saturation, hue and greying are one 3×3 matrix and an offset per image
(for grey images, a factor and an offset). kornia, which draws per image too, was measured four times slower
on a CPU; torchvision's transforms draw one set of parameters for a whole batch.
"""

from __future__ import annotations

from math import log, pi

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.interfaces import ImageInfo
from ebsc_core.options import Options

# Rec. 601 luma, as in PIL and torchvision.
LUMA = (0.299, 0.587, 0.114)
# RGB to YIQ; hue is rotated in the IQ plane.
RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


class ViewOptions(Options):
    """How views are drawn. Amplitudes are half-widths around the unchanged image; 0 turns one off."""

    crop: float = Field(gt=0, le=1)
    """Smallest share of the image's area a crop keeps."""
    aspect: float = Field(4 / 3, ge=1)
    """Largest ratio of a crop's sides."""
    flip: float = Field(ge=0, le=1)
    """Chance of a left-right flip."""
    rotate: float = Field(ge=0, le=180)
    """Largest rotation, in degrees."""
    brightness: float = Field(ge=0, le=1)
    """Largest relative change of brightness."""
    contrast: float = Field(ge=0, le=1)
    """Largest relative change of contrast, around the image's own mean."""
    saturation: float = Field(0.0, ge=0, le=1)
    """Largest relative change of saturation (colour images)."""
    hue: float = Field(0.0, ge=0, le=0.5)
    """Largest rotation of the hue, in turns (colour images; in YIQ, a close relative of HSV's)."""
    jitter: float = Field(0.8, ge=0, le=1)
    """Chance that an image's colours (or grey levels) are changed at all."""
    grey: float = Field(0.0, ge=0, le=1)
    """Chance that a colour image is turned grey."""
    blur: float = Field(0.0, ge=0, le=1)
    """Chance of a Gaussian blur (sigma 0.1 to 2 pixels, kernel a tenth of the image)."""
    noise: float = Field(0.0, ge=0, le=1)
    """Standard deviation of Gaussian noise added to values in [0, 1]."""


COLOUR_VIEWS = ViewOptions(
    crop=0.2, flip=0.5, rotate=0, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grey=0.2
)
"""SimCLR's views (arXiv:2002.05709, appendix A) with the milder jitter usual at 32 pixels."""

GREY_VIEWS = ViewOptions(crop=0.7, flip=0.0, rotate=15, brightness=0.4, contrast=0.4)
"""For digits and faces, which fill their frame: a mirrored 2 is no 2, and light changes more than pose."""


def default_views(info: ImageInfo) -> ViewOptions:
    """The policy for these images: by colour, with blur from 64 pixels on as in SimCLR."""
    if info.channels == 1:
        return GREY_VIEWS
    large = min(info.height, info.width) >= 64
    return COLOUR_VIEWS.model_copy(update={"blur": 0.5}) if large else COLOUR_VIEWS


def draw_view(images: Tensor, options: ViewOptions, generator: torch.Generator) -> Tensor:
    """One random view of each image.

    Parameters
    ----------
    images : Tensor of shape (B, C, H, W)
        uint8, ``C`` 1 or 3.
    options : ViewOptions
    generator : torch.Generator
        On the CPU; parameters are drawn there, so that a seed means the same on every device.

    Returns
    -------
    Tensor of shape (B, C, H, W), float32 in [0, 1], channels-last.
    """
    view = images.to(torch.float32).div_(255)
    view = _geometry(view, options, generator)
    view = _colour(view, options, generator)
    if options.blur:
        view = _blur(view, options.blur, generator)
    if options.noise:
        noise = torch.randn(view.shape, generator=generator).to(view.device)
        view = (view + options.noise * noise).clamp_(0, 1)
    return view.contiguous(memory_format=torch.channels_last)


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low


def _geometry(images: Tensor, options: ViewOptions, generator: torch.Generator) -> Tensor:
    matrix = affine_matrices(images.shape, options, generator).to(images.device)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def affine_matrices(shape: torch.Size, options: ViewOptions, generator: torch.Generator) -> Tensor:
    """``(B, 2, 3)`` maps from view to image coordinates: crop box, flip and rotation of each image."""
    n, _, height, width = shape
    area = _uniform(n, options.crop, 1.0, generator)
    ratio = _uniform(n, -log(options.aspect), log(options.aspect), generator).exp()
    # Half-extents of the crop in [-1, 1] coordinates; a crop never leaves the image.
    sx = (area * ratio).sqrt().clamp(max=1)
    sy = (area / ratio).sqrt().clamp(max=1)
    tx = _uniform(n, -1, 1, generator) * (1 - sx)
    ty = _uniform(n, -1, 1, generator) * (1 - sy)
    flip = 1 - 2 * (torch.rand(n, generator=generator) < options.flip).float()
    angle = _uniform(n, -options.rotate, options.rotate, generator) * (pi / 180)
    cos, sin, slant = angle.cos(), angle.sin(), height / width
    return torch.stack(
        [
            torch.stack([sx * flip * cos, -sx * sin * slant, tx], dim=1),
            torch.stack([sy * flip * sin / slant, sy * cos, ty], dim=1),
        ],
        dim=1,
    )


def _colour(images: Tensor, options: ViewOptions, generator: torch.Generator) -> Tensor:
    n, channels = images.shape[:2]
    changed = (torch.rand(n, generator=generator) < options.jitter).float()
    brightness = 1 + changed * _uniform(n, -options.brightness, options.brightness, generator)
    contrast = 1 + changed * _uniform(n, -options.contrast, options.contrast, generator)
    if channels == 1:
        mixing = (brightness * contrast).view(n, 1, 1)
        luma = torch.ones(1)
    else:
        mixing = _mixing(n, options, changed, generator) * (brightness * contrast).view(n, 1, 1)
        luma = torch.tensor(LUMA)
    mixing, luma = mixing.to(images.device), luma.to(images.device)
    # Contrast blends with the mean grey of the (brightened) image.
    grey_mean = torch.einsum("nchw,c->n", images, luma) / (images.shape[2] * images.shape[3])
    offset = (brightness * (1 - contrast)).to(images.device) * grey_mean
    mixed = torch.einsum("ndc,nchw->ndhw", mixing, images) + offset.view(n, 1, 1, 1)
    return mixed.clamp_(0, 1)


def _mixing(n: int, options: ViewOptions, changed: Tensor, generator: torch.Generator) -> Tensor:
    """``(B, 3, 3)``: saturation, then hue, then greying."""
    luma = torch.tensor(LUMA).expand(3, 3)
    eye = torch.eye(3)
    saturation = 1 + changed * _uniform(n, -options.saturation, options.saturation, generator)
    angle = changed * _uniform(n, -options.hue, options.hue, generator) * (2 * pi)
    grey = (torch.rand(n, generator=generator) < options.grey).float()
    saturation = saturation * (1 - grey)
    s = saturation.view(n, 1, 1)
    return _hue_rotation(angle) @ (s * eye + (1 - s) * luma)


def _hue_rotation(angle: Tensor) -> Tensor:
    to_yiq = torch.tensor(RGB_TO_YIQ)
    rotation = torch.zeros(len(angle), 3, 3)
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1] = rotation[:, 2, 2] = angle.cos()
    rotation[:, 1, 2], rotation[:, 2, 1] = -angle.sin(), angle.sin()
    return torch.linalg.inv(to_yiq) @ rotation @ to_yiq


def _blur(images: Tensor, chance: float, generator: torch.Generator) -> Tensor:
    """Separable Gaussian blur with a width of its own for each image."""
    n, channels, height, width = images.shape
    radius = max(1, min(height, width) // 20)
    sigma = _uniform(n, 0.1, 2.0, generator)
    # A width near zero is the identity kernel.
    sigma = torch.where(torch.rand(n, generator=generator) < chance, sigma, torch.tensor(1e-3))
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.softmax(-(offsets**2) / (2 * sigma.view(n, 1) ** 2), dim=1).to(images.device)
    kernel = kernel.repeat_interleave(channels, dim=0)
    flat = images.reshape(1, n * channels, height, width)
    flat = F.pad(flat, (radius,) * 4, mode="replicate")
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=n * channels)
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=n * channels)
    return flat.view(n, channels, height, width)

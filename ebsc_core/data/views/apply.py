"""Random views of images, made for a whole batch at once on its device.

Every image of a batch gets its own parameters. Crop, flip, rotation and anisotropic scaling are one
``grid_sample``; brightness, contrast, saturation, hue and greying are one 3×3 matrix and an offset per image
(for grey images, a factor and an offset). kornia draws per image too, and was measured several times slower
(``benchmarks/speed/views.py``); torchvision's transforms draw one set of parameters for a whole batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.data.views.options import ViewOptions
from ebsc_core.data.views.parameters import ViewParameters, draw_parameters

# A thread's worth of values on a CPU, 512 KiB. Measured at 1.5 to 2 times the speed of 256 images at once:
# larger intermediate results leave the caches, and their memory goes back to the system each time.
BLOCK_VALUES = 1 << 17


def draw_view(images: Tensor, options: ViewOptions, generator: torch.Generator) -> Tensor:
    """One random view of each image, as :func:`apply_view` returns it; parameters from a CPU generator."""
    return apply_view(images, draw_parameters(images.shape, options, generator), options)


def apply_view(images: Tensor, parameters: ViewParameters, options: ViewOptions) -> Tensor:
    """The view of each image that its parameters describe.

    Parameters
    ----------
    images : Tensor of shape (B, C, H, W)
        uint8, ``C`` 1 or 3.
    parameters : ViewParameters
        Of these images, drawn with the same ``options``; on the CPU or on the images' device.

    Returns
    -------
    Tensor of shape (B, C, H, W), float32 in [0, 1], channels-last.
    """
    parameters = parameters.to(images.device)
    view = torch.empty(images.shape, device=images.device, memory_format=torch.channels_last)
    block = _block(images)
    for start in range(0, len(images), block):
        part = slice(start, start + block)
        view[part] = _apply(images[part], parameters.rows(part), options)
    return view


def _block(images: Tensor) -> int:
    """Images at once: on a CPU, as many as its caches hold."""
    if images.device.type != "cpu":
        return len(images)
    return max(1, BLOCK_VALUES * torch.get_num_threads() // images.shape[1:].numel())


def _apply(images: Tensor, parameters: ViewParameters, options: ViewOptions) -> Tensor:
    view = images.to(torch.float32).div_(255)
    view = _resample(view, parameters.matrix)
    view = _recolor(view, parameters)
    if options.exact_hue and options.hue and view.shape[1] == 3:
        turn_hue_(view, parameters.turn)
    if options.blur_prob:
        view = _blur(view, parameters.sigma)
    if parameters.noise is not None:
        view = (view + parameters.noise).clamp_(0, 1)
    return view


def _resample(images: Tensor, matrix: Tensor) -> Tensor:
    grid = sampling_grid(matrix, images.shape[2], images.shape[3])
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def sampling_grid(matrix: Tensor, height: int, width: int) -> Tensor:
    """``(B, H, W, 2)``: what ``F.affine_grid`` gives without aligned corners, from a row and a column.

    It multiplies a matrix with every pixel, which takes longer on a CPU than sampling at the result.
    """
    x, y = (
        (2 * torch.arange(n, dtype=torch.float32, device=matrix.device) + 1) / n - 1 for n in (width, height)
    )
    row = matrix[:, :, 0, None] * x
    column = matrix[:, :, 1, None] * y + matrix[:, :, 2, None]
    return column.transpose(1, 2).unsqueeze(2) + row.transpose(1, 2).unsqueeze(1)


def _recolor(images: Tensor, parameters: ViewParameters) -> Tensor:
    offset = (images.mean((2, 3)) * parameters.shift).sum(1).view(-1, 1, 1)
    offset = offset.expand(-1, images.shape[1], 1)
    return torch.baddbmm(offset, parameters.mixing, images.flatten(2)).clamp_(0, 1).view(images.shape)


def turn_hue_(images: Tensor, turns: Tensor) -> None:
    """Rotate the hue in HSV, in place, of images ``(B, 3, H, W)`` in [0, 1], by turns ``(B,)``.

    Source: the closed form of HSV to RGB, ``v - c · clamp(2 - |k|, 0, 1)`` with k the distance in sixths of a
    turn from the hue opposite to the channel's. On either side of red, with ``low`` the smallest channel, the
    hue is ``(c + g + b - r - low) / c`` sixths away from it, whichever channel is largest: no pixel takes a
    branch, which is what most of a CPU's time goes into otherwise.
    """
    red, green, blue = images.unbind(1)
    value, low = images.amax(1), images.amin(1)
    chroma = value - low
    side = green - blue
    hue = (green + blue).sub_(red).sub_(low).add_(chroma)
    # Where there is no chroma there is no hue, and what stands here is multiplied by 0.
    hue = hue.div_((6 * chroma).clamp_min_(1e-12)).copysign_(side).add_(turns.view(-1, 1, 1))
    for channel, opposite in enumerate((3 / 6, 5 / 6, 1 / 6)):
        apart = hue - opposite
        share = apart.sub_(apart.round()).abs_().mul_(-6).add_(2).clamp_(0, 1)
        torch.addcmul(value, chroma, share, value=-1, out=images[:, channel])


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Separable Gaussian blur with a width of its own for each image."""
    n, channels, height, width = images.shape
    radius = max(1, min(height, width) // 20)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=images.device)
    kernel = torch.softmax(-(offsets**2) / (2 * sigma.view(n, 1) ** 2), dim=1)
    kernel = kernel.repeat_interleave(channels, dim=0)
    flat = images.reshape(1, n * channels, height, width)
    flat = F.pad(flat, (radius,) * 4, mode="replicate")
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=n * channels)
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=n * channels)
    return flat.view(n, channels, height, width)

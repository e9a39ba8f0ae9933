"""What is random about a view: a row of numbers for each image, drawn on the CPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from math import log, pi

import torch
from torch import Tensor

from ebsc_core.data.views.options import ViewOptions
from ebsc_core.utils.device import move

# Rec. 601 luma, as in PIL and torchvision.
LUMA = (0.299, 0.587, 0.114)
# RGB to YIQ; hue is rotated in the IQ plane.
RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


@dataclass(frozen=True)
class ViewParameters:
    """Of each image of a batch: where its view is taken from it, and how it is changed.

    Held as one tensor, so that one copy brings all of it to a GPU.
    """

    packed: Tensor
    """``(B, C² + C + 8)`` float32: what the properties below say, side by side."""
    channels: int
    noise: Tensor | None = None
    """``(B, C, H, W)``, to be added to the pixels."""

    @classmethod
    def of(
        cls, matrix: Tensor, mixing: Tensor, shift: Tensor, turn: Tensor, sigma: Tensor, noise: Tensor | None
    ) -> ViewParameters:
        """From what the properties are to give."""
        parts = [matrix.flatten(1), mixing.flatten(1), shift, turn[:, None], sigma[:, None]]
        return cls(torch.cat(parts, dim=1), shift.shape[1], noise)

    @property
    def matrix(self) -> Tensor:
        """``(B, 2, 3)`` maps from view to image coordinates."""
        return self.packed[:, :6].unflatten(1, (2, 3))

    @property
    def mixing(self) -> Tensor:
        """``(B, C, C)``: each channel of the view as a combination of the image's."""
        return self.packed[:, 6 : 6 + self.channels**2].unflatten(1, (self.channels, self.channels))

    @property
    def shift(self) -> Tensor:
        """``(B, C)``: how much of the mean of each of the image's channels is added to all of the view's."""
        return self.packed[:, -2 - self.channels : -2]

    @property
    def turn(self) -> Tensor:
        """``(B,)``: by how many turns to rotate the hue of HSV, where that is asked for."""
        return self.packed[:, -2]

    @property
    def sigma(self) -> Tensor:
        """``(B,)``: standard deviation of the blur in pixels; next to 0 for none."""
        return self.packed[:, -1]

    def rows(self, chosen: slice) -> ViewParameters:
        """Those of some of the images."""
        noise = None if self.noise is None else self.noise[chosen]
        return replace(self, packed=self.packed[chosen], noise=noise)

    def to(self, device: torch.device) -> ViewParameters:
        """On a device, without waiting for it."""
        noise = None if self.noise is None else move(self.noise, device)
        return replace(self, packed=move(self.packed, device), noise=noise)


def draw_parameters(shape: torch.Size, options: ViewOptions, generator: torch.Generator) -> ViewParameters:
    """Parameters for a view of each image of a batch.

    Parameters
    ----------
    shape : torch.Size
        ``(B, C, H, W)`` of the images, ``C`` 1 or 3. All of a batch's parameters are drawn together: whoever
        holds a part of its images draws all and takes its :meth:`ViewParameters.rows`.
    options : ViewOptions
    generator : torch.Generator
        On the CPU, so that a seed means the same on every device.
    """
    n, channels = shape[:2]
    matrix = affine_matrices(shape, options, generator)
    changed = (torch.rand(n, generator=generator) < options.jitter_prob).float()
    brightness = 1 + changed * _uniform(n, -options.brightness, options.brightness, generator)
    contrast = 1 + changed * _uniform(n, -options.contrast, options.contrast, generator)
    if channels == 1:
        mixing, luma, turn = torch.ones(n, 1, 1), torch.ones(1), torch.zeros(n)
    else:
        mixing, turn = _mixing(n, options, changed, generator)
        luma = torch.tensor(LUMA)
    mixing = mixing * (brightness * contrast).view(n, 1, 1)
    # Contrast blends with the mean grey of the (brightened) image.
    shift = (brightness * (1 - contrast)).view(n, 1) * luma
    sigma = _blur_widths(n, options.blur_prob, generator) if options.blur_prob else torch.zeros(n)
    noise = options.noise * torch.randn(shape, generator=generator) if options.noise else None
    return ViewParameters.of(matrix, mixing, shift, turn, sigma, noise)


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low


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


def _mixing(
    n: int, options: ViewOptions, changed: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """``(B, 3, 3)``: saturation, hue (of YIQ) and greying; and ``(B,)`` turns that are left for HSV."""
    luma = torch.tensor(LUMA).expand(3, 3)
    saturation = 1 + changed * _uniform(n, -options.saturation, options.saturation, generator)
    turn = changed * _uniform(n, -options.hue, options.hue, generator)
    gray = (torch.rand(n, generator=generator) < options.gray_prob).float()
    s = (saturation * (1 - gray)).view(n, 1, 1)
    if options.exact_hue:
        return s * torch.eye(3) + (1 - s) * luma, turn
    # A rotation of the hue leaves gray as it is, so that of the part (1 - s) it changes nothing.
    return s * _hue_rotation(turn * (2 * pi)) + (1 - s) * luma, torch.zeros(n)


def _hue_rotation(angle: Tensor) -> Tensor:
    """``(B, 3, 3)``: RGB to RGB, by rotations ``(B,)`` of the IQ plane.

    As a sum of three fixed matrices: products of many small matrices wake every thread of a large machine for
    nothing.
    """
    still, cosine, sine = _hue_parts()
    return still + angle.cos().view(-1, 1, 1) * cosine + angle.sin().view(-1, 1, 1) * sine


@cache
def _hue_parts() -> tuple[Tensor, Tensor, Tensor]:
    """What of a rotation is constant, what goes with its cosine, and what with its sine, ``(3, 3)`` each."""
    to_yiq = torch.tensor(RGB_TO_YIQ, dtype=torch.float64)
    luma, plane, turned = torch.zeros(3, 3, 3, dtype=torch.float64)
    luma[0, 0] = 1
    plane[1, 1] = plane[2, 2] = 1
    turned[1, 2], turned[2, 1] = -1, 1
    still, cosine, sine = (
        (torch.linalg.inv(to_yiq) @ part @ to_yiq).float() for part in (luma, plane, turned)
    )
    return still, cosine, sine


def _blur_widths(n: int, chance: float, generator: torch.Generator) -> Tensor:
    sigma = _uniform(n, 0.1, 2.0, generator)
    # A width near zero is the identity kernel.
    return torch.where(torch.rand(n, generator=generator) < chance, sigma, torch.tensor(1e-3))

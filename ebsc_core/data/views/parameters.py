"""Draw the random parameters of views on the CPU: one row of numbers per image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from math import log, pi

import torch
from torch import Tensor

from ebsc_core.data.images.channels import LUMA
from ebsc_core.data.views.options import ViewOptions
from ebsc_core.utils.device import move

# RGB to YIQ; hue is rotated in the IQ plane.
RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


@dataclass(frozen=True)
class ViewParameters:
    """Hold the parameters of one view of each image of a batch: its place in the image and its changes.

    One tensor holds all parameters, so that one copy moves them to a GPU.
    """

    packed: Tensor
    """The values of the properties below side by side, ``(B, C² + C + 8)`` float32."""
    channels: int
    noise: Tensor | None = None
    """The noise ``(B, C, H, W)`` that is added to the pixels."""

    @classmethod
    def of(
        cls, matrix: Tensor, mixing: Tensor, shift: Tensor, turn: Tensor, sigma: Tensor, noise: Tensor | None
    ) -> ViewParameters:
        """Pack the values of the properties."""
        parts = [matrix.flatten(1), mixing.flatten(1), shift, turn[:, None], sigma[:, None]]
        return cls(torch.cat(parts, dim=1), shift.shape[1], noise)

    @property
    def matrix(self) -> Tensor:
        """Return the maps ``(B, 2, 3)`` from view to image coordinates."""
        return self.packed[:, :6].unflatten(1, (2, 3))

    @property
    def mixing(self) -> Tensor:
        """Return ``(B, C, C)``: each channel of the view as a combination of the image's channels."""
        return self.packed[:, 6 : 6 + self.channels**2].unflatten(1, (self.channels, self.channels))

    @property
    def shift(self) -> Tensor:
        """Return ``(B, C)``: the factors of the image channels' means, added to every view channel."""
        return self.packed[:, -2 - self.channels : -2]

    @property
    def turn(self) -> Tensor:
        """Return the rotation ``(B,)`` of the HSV hue in turns, for ``exact_hue``."""
        return self.packed[:, -2]

    @property
    def sigma(self) -> Tensor:
        """Return the standard deviation ``(B,)`` of the blur in pixels; nearly 0 means no blur."""
        return self.packed[:, -1]

    def rows(self, chosen: slice) -> ViewParameters:
        """Return the parameters of a slice of the images."""
        noise = None if self.noise is None else self.noise[chosen]
        return replace(self, packed=self.packed[chosen], noise=noise)

    def to(self, device: torch.device) -> ViewParameters:
        """Copy the parameters to a device without waiting for it."""
        noise = None if self.noise is None else move(self.noise, device)
        return replace(self, packed=move(self.packed, device), noise=noise)


def draw_parameters(shape: torch.Size, options: ViewOptions, generator: torch.Generator) -> ViewParameters:
    """Draw the parameters of one view of each image of a batch.

    Parameters
    ----------
    shape : torch.Size
        The shape ``(B, C, H, W)`` of the images, with ``C`` 1 or 3. The parameters of a batch are drawn
        together. A process that holds only a share of the images draws all parameters and takes its
        :meth:`ViewParameters.rows`.
    options : ViewOptions
    generator : torch.Generator
        The generator is on the CPU, so that a seed gives the same views on every device.
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
    # Contrast blends the image with its mean grey after the change of brightness.
    shift = (brightness * (1 - contrast)).view(n, 1) * luma
    sigma = _blur_widths(n, options.blur_prob, generator) if options.blur_prob else torch.zeros(n)
    noise = options.noise * torch.randn(shape, generator=generator) if options.noise else None
    return ViewParameters.of(matrix, mixing, shift, turn, sigma, noise)


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low


def affine_matrices(shape: torch.Size, options: ViewOptions, generator: torch.Generator) -> Tensor:
    """Draw the maps ``(B, 2, 3)`` from view to image coordinates: crop, flip and rotation of each image."""
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
    """Return matrices ``(B, 3, 3)`` of saturation, YIQ hue and greying, and HSV hue turns ``(B,)``."""
    luma = torch.tensor(LUMA).expand(3, 3)
    saturation = 1 + changed * _uniform(n, -options.saturation, options.saturation, generator)
    turn = changed * _uniform(n, -options.hue, options.hue, generator)
    gray = (torch.rand(n, generator=generator) < options.gray_prob).float()
    s = (saturation * (1 - gray)).view(n, 1, 1)
    if options.exact_hue:
        return s * torch.eye(3) + (1 - s) * luma, turn
    # A rotation of the hue does not change grey. The term (1 - s) is grey, so it needs no rotation.
    return s * _hue_rotation(turn * (2 * pi)) + (1 - s) * luma, torch.zeros(n)


def _hue_rotation(angle: Tensor) -> Tensor:
    """Return matrices ``(B, 3, 3)`` that rotate the IQ plane of RGB values by angles ``(B,)``.

    Each is a weighted sum of three fixed matrices. Products of many small matrices would wake every thread
    of a large machine for nothing.
    """
    still, cosine, sine = _hue_parts()
    return still + angle.cos().view(-1, 1, 1) * cosine + angle.sin().view(-1, 1, 1) * sine


@cache
def _hue_parts() -> tuple[Tensor, Tensor, Tensor]:
    """Return the constant, cosine and sine parts of a rotation, ``(3, 3)`` each."""
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
    # A width near zero gives the identity kernel.
    return torch.where(torch.rand(n, generator=generator) < chance, sigma, torch.tensor(1e-3))

"""Principal directions of many rows, for the backbones that fit a subspace instead of training."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from scipy import linalg
from torch import Tensor

from ebsc_core import DataError

BLOCK = 512
# Directions below this share of the largest eigenvalue are rounding: what float64 leaves of a zero.
NOTHING = 1e-12


def fitting_images(images: Tensor, components: int, most: int) -> Tensor:
    """The images to fit to: all, or ``most`` of them evenly spaced where there are more.

    Raises
    ------
    DataError
        If there are fewer than components.
    """
    n = len(images)
    if n < components:
        raise DataError(
            f"{components} principal components take at least as many images, but there are {n}; "
            f"set backbone.components={n} or fewer"
        )
    if most < components:
        raise DataError(
            f"{components} principal components take at least as many images, but backbone.fit_images is "
            f"{most}; raise it or lower backbone.components"
        )
    return images if n <= most else images[torch.linspace(0, n - 1, most, dtype=torch.float64).round().long()]


def principal_directions(blocks: Iterable[Tensor], n: int, components: int) -> tuple[Tensor, Tensor]:
    """Leading eigenvectors of ``XᵀX``, ``X`` being ``n`` rows ``(n, D)`` that come in blocks.

    In float64 on the CPU whatever the device: CUDA's products are rounded to TF32, and Metal has no float64.
    What is held is the smaller of ``D×D`` and ``n×D``, so that few large images cost no ``D×D``.

    Returns
    -------
    directions : Tensor of shape (D, components)
        Orthonormal columns, the largest eigenvalue first, each with its largest entry positive; 0 where the
        rows have no extent in any further direction.
    eigenvalues : Tensor of shape (components,)
        The rows' squares along each, summed.
    """
    blocks = (block.cpu().double() for block in blocks)
    first = next(blocks)
    if n < first.shape[1]:
        rows = torch.cat([first, *blocks])
        values, left = _leading(rows @ rows.T, components)
        directions = rows.T @ left
        directions /= directions.norm(dim=0).clamp_min(torch.finfo(rows.dtype).tiny)
    else:
        gram = first.T @ first
        for block in blocks:
            gram.addmm_(block.T, block)
        values, directions = _leading(gram, components)
    extent = values > NOTHING * values[0]
    directions = torch.where(extent, directions * _signs(directions), 0.0)
    return directions, torch.where(extent, values, 0.0)


def _leading(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest eigenvalues of a positive semidefinite matrix, and their vectors, descending."""
    size = len(matrix)
    values, vectors = linalg.eigh(matrix.numpy(), subset_by_index=(size - count, size - 1), overwrite_a=True)
    return torch.from_numpy(values).flip(0), torch.from_numpy(vectors).flip(1)


def _signs(directions: Tensor) -> Tensor:
    """``(k,)`` factors ±1 that make each direction's largest entry positive; eigenvectors have no sign."""
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    return torch.where(largest < 0, -1.0, 1.0).to(directions.dtype)[0]

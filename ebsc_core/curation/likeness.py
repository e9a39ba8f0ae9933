"""Compare thumbnails so that a resized, recompressed or slightly cropped image is like its original.

An image is described by the low frequencies of its thumbnail (the discrete cosine transform, as in "pHash";
Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010). In photographs a few of
them carry nearly everything, and any two bright skies agree in these. So the frequencies are whitened by
their covariance over the images at hand: the similarity is a correlation in which each direction counts the
same, as far as it exceeds the noise of recompression. Two images that have nothing to do with each other
are then near 0, whatever is common to all images.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor

from ebsc_core.curation.thumbnails import SIDE
from ebsc_core.data.features.rows import unit_rows
from ebsc_core.utils.matmul import full_precision
from ebsc_core.utils.sampling import sample_positions

# Frequencies in each direction.
FREQUENCIES = 12
# Standard deviation of the noise that recompression adds to a grey value.
NOISE = 4.0
# The covariance of few images is drawn to that of all photographs (1/f²) as if so many of these were there.
PRIOR = 200
# So many images tell the covariance.
SAMPLE = 20_000
# The parts of a side that are compared with the whole of the other image: nothing cut off, and 5 % or 10 %
# at either end or at both.
PARTS = ((0, 1), (0, 0.95), (0.05, 1), (0.025, 0.975), (0, 0.9), (0.1, 1), (0.05, 0.95))
# Images whose parts are held at once: 512 take 15 MiB.
BLOCK = 512


class Likeness:
    """Compare images by their thumbnails ``(N, SIDE, SIDE)`` uint8."""

    def __init__(self, gray: np.ndarray) -> None:
        self.gray = gray
        some = sample_positions(len(gray), SAMPLE, seed=0)
        spectra = torch.cat([_spectra(self._levels(part), 1)[:, 0] for part in _blocks(some)]).double()
        self.mean = spectra.mean(dim=0)
        self.whitening = _whitening(spectra - self.mean)

    @cached_property
    def rows(self) -> Tensor:
        """A row ``(N, D)`` of unit length for each image; inner products are similarities."""
        blocks = _blocks(np.arange(len(self.gray)))
        return torch.cat([self._described(part, 1)[:, 0] for part in blocks])

    def similarities(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Compare pairs of images ``(P,)``; return ``(P,)`` float32 similarities, at most 1.

        Each image is cropped in all ways of ``PARTS``, in both directions apart, and compared with the other
        one. The largest correlation counts.
        """
        cropped, whole = np.concatenate([first, second]), np.concatenate([second, first])
        found = np.empty(len(cropped), np.float32)
        order = np.argsort(cropped, kind="stable")  # the pairs of an image share its parts
        images, starts = np.unique(cropped[order], return_index=True)
        pairs = iter(np.split(order, starts[1:]))
        with full_precision():
            for block in _blocks(images):
                for described, which in zip(self._described(block, len(PARTS)), pairs, strict=False):
                    products = described @ self.rows[torch.from_numpy(whole[which])].T
                    found[which] = products.amax(dim=0).numpy()
        return np.clip(found.reshape(2, -1).max(axis=0), -1, 1)

    def _described(self, images: np.ndarray, n_parts: int) -> Tensor:
        """Describe parts of images, ``(M, n_parts², D)`` of unit length; zeros without structure."""
        spectra = _spectra(self._levels(images), n_parts)
        with full_precision():
            whitened = (spectra - self.mean.float()) @ self.whitening.float()
        structured = spectra.square().sum(dim=2, keepdim=True) > spectra.shape[2] * NOISE**2
        return unit_rows((whitened * structured).flatten(0, 1)).view_as(whitened)

    def _levels(self, images: np.ndarray) -> Tensor:
        return torch.from_numpy(self.gray[images]).float()


def _spectra(levels: Tensor, n_parts: int) -> Tensor:
    """Return the low frequencies ``(M, n_parts², D)`` of thumbnails ``(M, SIDE, SIDE)``.

    Each of the first ``n_parts`` of ``PARTS`` of the height is combined with each of the width.
    """
    transforms = _transforms()[:n_parts].flatten(0, 1)
    with full_precision():
        both = transforms @ levels @ transforms.T
    apart = both.view(-1, n_parts, FREQUENCIES, n_parts, FREQUENCIES).transpose(2, 3)
    return apart.reshape(len(levels), n_parts**2, -1)[:, :, 1:]  # without the mean level


@cache
def _transforms() -> Tensor:
    """Return, for each of ``PARTS``, the map ``(FREQUENCIES, SIDE)`` from a line to its low frequencies."""
    places = (np.arange(SIDE) + 0.5) / SIDE
    cosines = np.cos(np.pi * np.arange(FREQUENCIES)[:, None] * places) * np.sqrt(2 / SIDE)
    cosines[0] /= np.sqrt(2)
    maps = [cosines @ _resampling(start, end) for start, end in PARTS]
    return torch.from_numpy(np.stack(maps)).float()


def _resampling(start: float, end: float) -> np.ndarray:
    """Return the map ``(SIDE, SIDE)`` that stretches a part of a line to the whole, linearly."""
    places = ((start + (end - start) * (np.arange(SIDE) + 0.5) / SIDE) * SIDE - 0.5).clip(0, SIDE - 1)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(SIDE)))


def _whitening(spectra: Tensor) -> Tensor:
    """Return the map ``(D, D)`` that whitens centred spectra ``(M, D)``, as far as they exceed noise."""
    n = len(spectra)
    grid = torch.arange(FREQUENCIES, dtype=torch.float64) ** 2
    typical = 1 / (grid[:, None] + grid).flatten()[1:]
    power = spectra.square().sum() / max(1, n)
    prior = torch.diag(typical / typical.sum() * power)
    covariance = (spectra.T @ spectra + PRIOR * prior) / (n + PRIOR)
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors / (values + NOISE**2).sqrt()) @ vectors.T


def _blocks(positions: np.ndarray) -> Iterator[np.ndarray]:
    return (positions[start : start + BLOCK] for start in range(0, len(positions), BLOCK))

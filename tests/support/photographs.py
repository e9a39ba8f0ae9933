"""Draw pictures that have the spectrum of photographs."""

from __future__ import annotations

import numpy as np


def photographs(n: int, side: int, seed: int = 0) -> np.ndarray:
    """Draw ``(N, side, side, 3)`` uint8 pictures with the spectrum of natural images (1/f)."""
    numbers = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    frequency[0, 0] = 1 / side
    noise = np.fft.fft2(numbers.standard_normal((n, 3, side, side)))
    gray, color = np.fft.ifft2(noise / frequency).real, np.fft.ifft2(noise[:, :1] / frequency).real
    mixed = color + 0.3 * gray
    mixed = 128 + 50 * (mixed - mixed.mean()) / mixed.std()
    return np.moveaxis(mixed.clip(0, 255).astype(np.uint8), 1, -1)

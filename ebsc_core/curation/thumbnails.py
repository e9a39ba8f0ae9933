"""Reduce each image to a small grey thumbnail and a digest of its pixels, in one pass over the images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from ebsc_core.data.features.rows import Rows
from ebsc_core.data.images.channels import LUMA
from ebsc_core.data.images.run_images import RunImages
from ebsc_core.utils.progress import Progress

# Pixels of a side. A 5 % crop shifts the border of a thumbnail by one or two pixels.
SIDE = 32
DIGEST = 16


@dataclass(frozen=True)
class Thumbnails:
    """Hold the thumbnails of ``N`` images, and which images are equal."""

    gray: np.ndarray
    """``(N, SIDE, SIDE)`` uint8."""
    content: np.ndarray
    """``(N,)`` int64; images of equal pixels have the same number."""


def make_thumbnails(images: RunImages, progress: Progress) -> Thumbnails:
    """Read all images once, batch by batch, and keep a thumbnail of a kilobyte of each.

    Raises
    ------
    DataError
        If an image cannot be read.
    """
    gray = np.empty((len(images), SIDE, SIDE), np.uint8)
    digests = np.empty(len(images), f"V{DIGEST}")
    done = 0
    progress.start("looking", len(images), "images")
    for which, pixels in images.read(np.arange(len(images))):
        gray[which], digests[which] = _shrunk(pixels), _digests(pixels)
        done += len(which)
        progress.advance(done)
    progress.finish()
    return Thumbnails(gray, _numbered(digests))


def content_of_rows(rows: Rows) -> np.ndarray:
    """Return numbers ``(N,)`` int64 that are the same for equal rows."""
    blocks = [_digests(block.cpu().numpy()) for _, block in rows.blocks()]
    return _numbered(np.concatenate(blocks))


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    """Convert images ``(B, C, H, W)`` uint8 to thumbnails."""
    levels = torch.from_numpy(pixels).float()
    if levels.shape[1] == 3:
        levels = (levels * torch.tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    small = F.interpolate(levels, (SIDE, SIDE), mode="bilinear", antialias=True)
    return small[:, 0].round().clamp(0, 255).to(torch.uint8).numpy()


def _digests(items: Iterable[np.ndarray]) -> np.ndarray:
    found = [hashlib.blake2b(np.ascontiguousarray(one).data, digest_size=DIGEST).digest() for one in items]
    return np.array(found, f"V{DIGEST}")


def _numbered(digests: np.ndarray) -> np.ndarray:
    words = np.ascontiguousarray(digests).view(np.int64).reshape(-1, DIGEST // 8)
    return np.unique(words, axis=0, return_inverse=True)[1].reshape(-1)

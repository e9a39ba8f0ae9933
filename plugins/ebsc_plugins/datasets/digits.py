"""The handwritten digits bundled with scikit-learn."""

from __future__ import annotations

import numpy as np
import torch

from ebsc_core import DataContext, ImageSet, Options


def read_digits(options: Options, context: DataContext) -> ImageSet:
    """1,797 images of 8×8; their 17 grey levels are spread over 0 … 255."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    ids = [str(index) for index in range(len(images))]
    return ImageSet("digits", torch.from_numpy(images[:, None]), ids, bunch.target.astype(np.int64))

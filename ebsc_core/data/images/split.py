"""Split images into a fit set and a test set.

Test images are assigned to the fitted clusters afterwards.
"""

from __future__ import annotations

import numpy as np

from ebsc_core.data.images.source import ImageSource
from ebsc_core.utils.errors import ConfigError
from ebsc_core.utils.sampling import sample_positions


def split(data: ImageSource, test_share: float, seed: int) -> tuple[ImageSource, ImageSource]:
    """Split the images at random, by the seed, into a fit set and a test set.

    Raises
    ------
    ConfigError
        If either set would be empty.
    """
    n_test = round(test_share * len(data))
    if not 0 < n_test < len(data):
        raise ConfigError(
            f"test_share is {test_share}, which leaves {len(data) - n_test} of {len(data)} images to fit on "
            f"and {n_test} to test on"
        )
    test = sample_positions(len(data), n_test, seed)
    rest = np.setdiff1d(np.arange(len(data)), test, assume_unique=True)
    return data.take(rest), data.take(test)

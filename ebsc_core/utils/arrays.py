"""Share the memory of NumPy arrays with torch."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor


def shared_tensor(array: np.ndarray) -> Tensor:
    """Return a tensor on the memory of an array, which nothing may write to.

    The array may be read-only, such as a file that is mapped into memory. torch warns of such arrays,
    because it has no read-only tensors; so the caller of this function must not write to the tensor.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)

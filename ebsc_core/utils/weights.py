"""Weights on disk, as safetensors."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ebsc_core.utils.errors import DataError
from ebsc_core.utils.files import written_whole


def save_weights(module: nn.Module, path: Path) -> None:
    """Write a module's tensors; the file appears under its name only when complete.

    Raises
    ------
    OSError
        If it cannot be written, for instance to a full disk.
    """
    # Copies, since safetensors refuses tensors that share memory.
    state = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in module.state_dict().items()
    }
    try:
        with written_whole(path) as temporary_path:
            save_file(state, temporary_path)
    except SafetensorError as error:  # which is no OSError
        raise OSError(f"cannot write {path}: {error}") from None


def read_weights(module: nn.Module, path: Path) -> dict[str, Tensor]:
    """Read tensors that fit a module, which is left as it is.

    Raises
    ------
    DataError
        If the file is missing, damaged, or of other names or shapes.
    """
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} is damaged or missing ({error})") from None
    expected = module.state_dict()
    wrong = sorted(expected.keys() ^ state.keys())
    wrong = wrong or [name for name, value in state.items() if value.shape != expected[name].shape]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise DataError(f"{path} does not fit {type(module).__name__}: {wrong[0]}{more} differs")
    return state

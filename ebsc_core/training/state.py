"""Weights on disk, as safetensors."""

from __future__ import annotations

import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ebsc_core.errors import DataError


def save_weights(module: nn.Module, path: Path) -> None:
    """Write a module's tensors; the file appears under its name only when complete."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        state = {name: value.detach().contiguous().cpu() for name, value in module.state_dict().items()}
        save_file(state, beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a module's tensors; every one must match.

    Raises
    ------
    DataError
        If the file is missing, damaged, or of another shape.
    """
    try:
        module.load_state_dict(load_file(path), strict=True)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} is damaged or missing ({error})") from None
    except RuntimeError as error:
        why = " ".join(str(error).split())[:200]
        raise DataError(f"{path} does not fit {type(module).__name__}: {why}") from None

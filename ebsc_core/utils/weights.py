"""Save and load weights as safetensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ebsc_core.utils.errors import DataError
from ebsc_core.utils.files import written_whole


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the tensors of a module; the file gets its name only when it is complete.

    Raises
    ------
    OSError
        If the file cannot be written, for instance because the disk is full.
    """
    save_tensors(own_copies(module.state_dict()), path)


def own_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to the CPU: safetensors refuses those that share memory or lie channels-last."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def save_tensors(tensors: dict[str, Tensor], path: Path, header: dict[str, str] | None = None) -> None:
    """Write tensors and texts as safetensors; the file gets its name only when it is complete.

    Raises
    ------
    OSError
        If the file cannot be written, for instance because the disk is full.
    """
    try:
        with written_whole(path) as temporary_path:
            temporary_path.touch()
            mode = temporary_path.stat().st_mode
            save_file(tensors, temporary_path, header)
            temporary_path.chmod(mode)  # safetensors closes its files to all other users
    except SafetensorError as error:  # it is not an OSError
        raise OSError(f"cannot write {path}: {error}") from None


def read_weights(module: nn.Module, path: Path) -> dict[str, Tensor]:
    """Read tensors that fit a module, without changing the module.

    Raises
    ------
    DataError
        If the file is missing or damaged, or if its names or shapes do not fit the module.
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


def weights_digest(module: nn.Module) -> str:
    """Hash the names, types, shapes and values of a module's tensors."""
    hashed = hashlib.blake2b(digest_size=12)
    for name, value in sorted(module.state_dict().items()):
        hashed.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        hashed.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return hashed.hexdigest()

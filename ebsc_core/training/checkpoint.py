"""Save the training state to a file, and resume from it.

The file is in safetensors format; plain values are JSON in its header, and so is a digest of the whole. A
checkpoint holds the weights, the optimiser's moments and the states of the random generators after a step.
The position in the epoch is counted in images, so that training can resume with another batch size.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ebsc_core.utils.errors import DataError
from ebsc_core.utils.weights import own_copies, save_tensors

FORMAT = "ebsc-training-3"
# If the machine fails, at most this many seconds of training are lost.
EVERY = 600.0

Checkpoint = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors by name, and plain values."""


class CheckpointStore:
    """Store the latest checkpoint of one training; a newer one replaces it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = time.monotonic()

    def due(self) -> bool:
        """Return whether enough time has passed since the last checkpoint."""
        return time.monotonic() - self.last >= EVERY

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint; the file gets its name only when it is complete.

        Raises
        ------
        OSError
            If the file cannot be written, for instance because the disk is full.
        """
        self.last = time.monotonic()
        tensors, record = checkpoint
        copies = own_copies(tensors)
        text = json.dumps(record)
        header = {"format": FORMAT, "record": text, "sha256": _digest(copies, text)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(copies, self.path, header)

    def load(self) -> Checkpoint | None:
        """Return the checkpoint, or None if there is none.

        Raises
        ------
        DataError
            If the file is not the one that was written, or has another format version.
        """
        if not self.path.exists():
            return None
        way_out = "restore it from a copy, or delete it to train from the start"
        try:
            with safe_open(self.path, framework="pt") as file:
                described = file.metadata() or {}
                if described.get("format") != FORMAT:
                    raise DataError(f"{self.path} is no checkpoint of this version; {way_out}")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            record = described["record"]
            if described["sha256"] != _digest(tensors, record):
                raise ValueError("its checksum differs")
            return tensors, json.loads(record)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise DataError(f"{self.path} is not the file that was written ({error}); {way_out}") from None

    def remove(self) -> None:
        """Delete the checkpoint, because nothing will resume from it."""
        self.path.unlink(missing_ok=True)


def _digest(tensors: dict[str, Tensor], record: str) -> str:
    """Return the SHA-256 of all that a checkpoint holds."""
    hasher = hashlib.sha256(record.encode())
    for name, tensor in sorted(tensors.items()):
        hasher.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def module_tensors(modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    """Collect weights and buffers, by module and name."""
    return {
        f"{kind}.{name}": tensor
        for kind, module in modules.items()
        for name, tensor in module.state_dict().items()
    }


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Collect the optimiser's state of each parameter, by the parameter's number."""
    return {
        f"optimiser.{number}.{name}": tensor
        for number, state in optimizer.state_dict()["state"].items()
        for name, tensor in state.items()
    }


def restore(
    tensors: dict[str, Tensor], modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer
) -> None:
    """Load the tensors of a checkpoint into modules and optimiser.

    Raises
    ------
    DataError
        If the checkpoint does not fit ``modules``. In this case nothing changes.
    """
    current = module_tensors(modules)
    saved = {name for name in tensors if name.startswith(("objective.", "model."))}
    wrong = sorted(saved ^ current.keys())
    wrong = wrong or [name for name, tensor in current.items() if tensors[name].shape != tensor.shape]
    if wrong:
        raise DataError(f"{wrong[0]} differs")
    state = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    remembered: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, number, what = name.split(".")
            parameter = parameters[int(number)]
            # Use the parameter's own memory layout, as the optimiser does.
            like = torch.empty_like(parameter) if tensor.shape == parameter.shape else tensor.clone()
            remembered.setdefault(int(number), {})[what] = like.detach().copy_(tensor)
    optimizer.load_state_dict(state | {"state": remembered})
    with torch.no_grad():
        for name, tensor in current.items():
            tensor.copy_(tensors[name])

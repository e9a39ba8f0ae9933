"""Read weights of other programs from a file, and load them into a model of timm."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from ebsc_core import ComponentError, text_of

# The names under which checkpoints hold the tensors of a network, in the order in which they are looked for.
NESTED = ("teacher", "state_dict", "model")
# The names that wrappers of torch put before those of all tensors.
WRAPPERS = ("module.", "_orig_mod.")
# So many names are said.
NAMED = 3

State = dict[str, Tensor]


@dataclass(frozen=True)
class RunBackbone:
    """Describe the file with the backbone of a run, by the tensors in it."""

    input_size: int | None
    """The side to which the network brings images; None if they keep their own."""
    small_stem: bool
    """Whether a ResNet has the stem for small images: a convolution of 3x3 in place of 7x7."""


def backbone_of_a_run(path: Path) -> RunBackbone | None:
    """Look into a file; None if it is not the backbone of a run, which has the statistics of its images."""
    try:
        with safe_open(path, "pt") as file:
            names = set(file.keys())
            if not {"mean", "std"} <= names:
                return None
            size = int(file.get_tensor("input_size")) if "input_size" in names else None
            stem = "model.conv1.weight"
            small = stem in names and file.get_slice(stem).get_shape()[-1] == 3
            return RunBackbone(size, small)
    except (OSError, SafetensorError, ValueError):
        return None


def read_tensors(path: Path) -> tuple[State, list[str]]:
    """Read the tensors of a safetensors file or of a checkpoint of torch, and say what they were taken from.

    Raises
    ------
    ComponentError
        If the file is missing, or holds anything but tensors and plain values.
    """
    if not path.is_file():
        raise ComponentError(f"backbone.weights: {path} does not exist or is not a file")
    try:
        held = load_file(path) if _is_safetensors(path) else _load(path)
    except Exception as error:  # torch raises many kinds
        raise ComponentError(
            f"backbone.weights: {path} is neither a safetensors file nor plain tensors of torch.save "
            f"({text_of(error)[:200]})"
        ) from None
    said: list[str] = []
    while name := next((name for name in NESTED if _holds_table(held, name)), ""):
        held, said = held[name], [*said, f"its entry {name!r}"]
    entries = held.items() if isinstance(held, Mapping) else ()
    tensors = {name: value for name, value in entries if isinstance(value, Tensor)}
    if not tensors:
        raise ComponentError(f"backbone.weights: {path} holds no tensors under names, so it is no state_dict")
    return tensors, said


def load_foreign(model: Any, path: Path, channels: int, strict: bool) -> str:
    """Load a file into a model of timm, and describe in a few words how its names were read.

    A prefix that the names of the network share is removed, and its classifier is left out. timm's own
    filters of checkpoints translate the names of the original code of some models, and scale position
    embeddings. The first convolution is adapted to grey images.

    Parameters
    ----------
    model : nn.Module
        A model of timm without its classifier.
    path : Path
        A safetensors file, or a checkpoint of torch with plain tensors.
    channels : int
        The channels of the images.
    strict : bool
        Whether every tensor of the model must be in the file, and every one of the file in the model.

    Raises
    ------
    ComponentError
        If the file does not fit.
    """
    state, said = read_tensors(path)
    state, prefix, others = _without_prefix(state, model)
    wrong = f"backbone.weights: {path} does not fit {model.pretrained_cfg.get('architecture')!r}"
    try:
        state = _translated(state, model)
        state, classifier = _without_classifier(state, model)
        _adapt_channels(state, model, channels)
        missing, unknown = model.load_state_dict(state, strict=False)
    except Exception as error:  # of timm's filters, or because shapes differ
        raise ComponentError(f"{wrong}: {text_of(error)[:300]}") from None
    nothing = state.keys().isdisjoint(model.state_dict())
    if nothing or (strict and (missing or unknown)):
        differ = " and ".join([*_counted("without", missing), *_counted("with unknown", unknown)])
        cure = "" if nothing else "; `backbone.strict=false` loads the others"
        raise ComponentError(f"{wrong}: it is {differ}{cure}")
    said += [f"prefix {prefix!r} removed"] if prefix else []
    said += _counted("without", [*classifier, *others, *unknown]) + _counted("random", missing)
    return f"weights of {path}" + (f" ({', '.join(said)})" if said else "")


def _is_safetensors(path: Path) -> bool:
    """Return whether a file begins as a safetensors file does: 8 bytes of length, then JSON."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _load(path: Path) -> Any:
    # Checkpoints of timm's own training hold the options of its command line.
    with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of files that the error says more about
        return torch.load(path, map_location="cpu", weights_only=True)


def _holds_table(held: Any, name: str) -> bool:
    return isinstance(held, Mapping) and isinstance(held.get(name), Mapping)


def _without_prefix(state: State, model: nn.Module) -> tuple[State, str, list[str]]:
    """Remove the prefix under which most names of the model occur; return the other names, too."""
    prefix = _prefix(state, model.state_dict())
    inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return inside, prefix, [name for name in state if not name.startswith(prefix)]


def _prefix(state: State, names: Iterable[str]) -> str:
    wanted = set(names)
    found: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        found.update(
            name[: len(name) - len(tail)]
            for start in range(len(parts))
            if (tail := ".".join(parts[start:])) in wanted
        )
    if found:
        return found.most_common(1)[0][0]
    # Perhaps a filter of timm knows these names, but not those of a wrapper.
    return next((wrapper for wrapper in WRAPPERS if all(name.startswith(wrapper) for name in state)), "")


def _translated(state: State, model: nn.Module) -> State:
    """Translate other names and sizes by the function that timm applies to downloaded weights, if any."""
    translate = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    return dict(translate(state, model)) if translate else state


def _without_classifier(state: State, model: Any) -> tuple[State, list[str]]:
    named = model.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{name}." for name in ([named] if isinstance(named, str) else named))
    known = model.state_dict()
    out = [name for name in state if name.startswith(heads) and name not in known]
    return {name: value for name, value in state.items() if name not in out}, out


def _adapt_channels(state: State, model: Any, channels: int) -> None:
    """Sum the first convolution over the colours if images are grey, as timm does."""
    named = model.pretrained_cfg.get("first_conv") or ()
    known = model.state_dict()
    for name in [named] if isinstance(named, str) else named:
        key = f"{name}.weight"
        if key in state and key in known and state[key].shape != known[key].shape:
            state[key] = adapt_input_conv(channels, state[key])


def _counted(word: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return [f"{word} {', '.join(names[:NAMED])}{more}"]

"""Any image model of timm as a backbone."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ebsc_core import Backbone, ComponentError, ComponentSpec, ImageInfo, Options, text_of

SMALL_IMAGE = 64


class TimmOptions(Options):
    """Options of a timm backbone."""

    pretrained: bool = False
    """Start from timm's pretrained weights (downloaded, or from the local Hugging Face cache)."""
    weights: str | None = None
    """Start from this .safetensors file instead, of an earlier run or of timm; every tensor must match."""
    stem: bool | None = None
    """Use the small-image stem (3x3, stride 1, no max-pool). By default for ResNets under 64 px that are
    not pretrained."""
    drop_path: float = 0.0
    """Stochastic depth rate, for models that have it."""


class TimmBackbone(Backbone):
    """Pooled features ``(B, D)`` of a timm model, with its input normalisation inside.

    Images under 64 pixels would leave a ResNet's ImageNet stem at a quarter of their size; as in SimCLR's
    CIFAR experiments (arXiv:2002.05709, appendix B.9), that stem becomes one 3×3 convolution of stride 1.
    """

    mean: Tensor
    std: Tensor
    model: Any

    def __init__(self, name: str, options: TimmOptions, info: ImageInfo) -> None:
        super().__init__()
        self.name = name
        model = _create(name, options, info)
        small_image = min(info.height, info.width) < SMALL_IMAGE
        has_resnet_stem = isinstance(getattr(model, "maxpool", None), nn.MaxPool2d) and hasattr(
            model, "conv1"
        )
        wanted = options.stem
        if wanted and not has_resnet_stem:
            raise ComponentError(
                f"backbone {name!r} has no ResNet stem to replace; leave backbone.stem unset"
            )
        self.small_stem = bool(
            wanted if wanted is not None else small_image and has_resnet_stem and not options.pretrained
        )
        self.stem_reason = ", as asked" if wanted else f", images are under {SMALL_IMAGE} px"
        if self.small_stem:
            model.conv1 = nn.Conv2d(info.channels, model.bn1.num_features, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
            model.maxpool = nn.Identity()
        self.model = model
        mean, std = _statistics(model, options, info)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        if options.weights:
            _load_weights(self, options.weights)
        self.width = _measure_width(self, name, info)

    def describe(self) -> str:
        stem = f"3x3 stem without max-pool{self.stem_reason}" if self.small_stem else "own stem"
        millions = sum(p.numel() for p in self.parameters()) / 1e6
        return f"{self.name}, {millions:.1f} M parameters, {self.width} features, {stem}"

    def forward(self, images: Tensor) -> Tensor:
        return self.model((images - self.mean) / self.std)


def _create(name: str, options: TimmOptions, info: ImageInfo) -> Any:
    arguments: dict = {
        "pretrained": options.pretrained,
        "num_classes": 0,
        "in_chans": info.channels,
    }
    if timm.models.is_model_in_modules(name, {"resnet"}):
        # timm starts residual branches at zero. What is left, the shortcuts, samples one pixel in 64: a
        # momentum teacher that starts so has nothing to teach (digits, BYOL: 5-NN 0.72 against 0.96).
        arguments["zero_init_last"] = False
    if options.drop_path:
        arguments["drop_path_rate"] = options.drop_path
    if timm.get_pretrained_cfg_value(name, "fixed_input_size"):
        arguments["img_size"] = (info.height, info.width)
    try:
        return timm.create_model(name, **arguments)
    except Exception as error:  # timm, its hub client and its models raise many kinds
        why = _first_line(error)
        cure = (
            "without a network use `backbone.weights=FILE.safetensors`"
            if options.pretrained
            else f"it may not take {info.channels}x{info.height}x{info.width} images or an option given"
        )
        raise ComponentError(f"timm cannot build backbone {name!r} ({why}); {cure}") from None


def _statistics(
    model: Any, options: TimmOptions, info: ImageInfo
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Pretrained weights expect their own normalisation, others get the data's."""
    if not options.pretrained:
        return info.mean, info.std
    mean, std = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
    return (mean, std) if info.channels == 3 else ((sum(mean) / 3,), (sum(std) / 3,))


def _load_weights(backbone: TimmBackbone, file: str) -> None:
    """Load a backbone of an earlier run, or a checkpoint in timm's own layout without its classifier."""
    if not Path(file).is_file():
        raise ComponentError(f"backbone.weights: {file} does not exist or is not a file")
    try:
        state = load_file(file)
        if "mean" in state:
            backbone.load_state_dict(state, strict=True)
        else:
            head = f"{backbone.model.pretrained_cfg.get('classifier', 'fc')}."
            kept = {name: value for name, value in state.items() if not name.startswith(head)}
            backbone.model.load_state_dict(kept, strict=True)
    except SafetensorError as error:
        raise ComponentError(f"backbone.weights: {file} is not a safetensors file ({error})") from None
    except RuntimeError as error:
        why = text_of(error)[:200]
        hint = "; for its ImageNet stem add `backbone.stem=false`" if backbone.small_stem else ""
        raise ComponentError(
            f"backbone.weights: {file} does not fit {backbone.name!r}{hint}: {why}"
        ) from None


def _measure_width(backbone: Backbone, name: str, info: ImageInfo) -> int:
    """Push one image through: the only sure way to know what comes out, and that anything does."""
    training = backbone.training
    try:
        with torch.no_grad():
            out = backbone.eval()(torch.zeros(1, info.channels, info.height, info.width))
    except Exception as error:  # models check their input by assertions as well
        why = _first_line(error)
        raise ComponentError(
            f"backbone {name!r} cannot take {info.height}x{info.width} images ({why})"
        ) from None
    finally:
        backbone.train(training)
    if out.ndim != 2:
        raise ComponentError(
            f"backbone {name!r} gives features of shape {tuple(out.shape[1:])}, not a vector"
        )
    return out.shape[1]


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


resnet18 = partial(TimmBackbone, "resnet18")


def resolve(name: str) -> ComponentSpec | None:
    """Any name ``timm.create_model`` knows, with or without a pretrained tag."""
    if not timm.is_model(name):
        return None
    return ComponentSpec(name, f"{name} of timm", partial(TimmBackbone, name), options=TimmOptions)


def names() -> Iterable[str]:
    """All of timm's model names."""
    return timm.list_models()

"""Use any image model of timm as a backbone."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import timm
import torch
from pydantic import PositiveInt, PrivateAttr, field_validator
from torch import Tensor, nn

from ebsc_core import (
    Backbone,
    BackboneStart,
    ComponentError,
    ComponentSpec,
    ImageInfo,
    Options,
    fault_of,
    text_of,
)
from ebsc_plugins.backbones.folding import fold_batch_norm
from ebsc_plugins.backbones.framing import Framing
from ebsc_plugins.backbones.hub import cache_alone_without_network
from ebsc_plugins.backbones.weight_files import RunBackbone, backbone_of_a_run, load_foreign, read_tensors

# timm's function has no types.
resolve_data_config: Any = timm.data.config.resolve_data_config

SMALL_IMAGE = 64
# Activations of so many framed pixels are held at a time where no gradient needs them: 64 images of 224 px.
PIXELS_AT_ONCE = 64 * 224 * 224


class TimmOptions(Options):
    """Configure a timm backbone."""

    former: ClassVar[dict[str, Any]] = {"input_size": "images"}

    pretrained: bool = False
    """The network starts from timm's pretrained weights, which are downloaded or come from the local Hugging
    Face cache. They stay as they are unless `train.epochs` is set."""
    weights: str | None = None
    """The network starts from this file: the backbone of an earlier run, a .safetensors file, or a checkpoint
    of torch with plain tensors, with the names of timm or of torchvision's ResNets. It stays as it is unless
    `train.epochs` is set."""
    strict: bool = True
    """With ``weights``, every tensor of the network must be in the file, and every tensor of the file in the
    network, apart from its classifier. If false, the announcement names what differs."""
    input_size: PositiveInt | Literal["auto", "images"] = "auto"
    """The side, in pixels, to which images are brought on the device, right before the network. ``auto`` is
    the side that trained weights expect, as timm states it, together with filter, crop, mean and standard
    deviation. Networks without trained weights keep the size of the images, and the network of an earlier run
    does as it did there. With ``images``, all keep the size, and weights from a file get the statistics of
    the images."""
    stem: bool | None = None
    """The model uses the small-image stem (3x3, stride 1, no max-pool). By default, ResNets without
    trained weights use it for images under 64 px."""
    drop_path: float = 0.0
    """The stochastic depth rate, for models that support it."""
    _loads: bool = PrivateAttr(True)

    @field_validator("weights")
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        return path if path is None else os.path.abspath(os.path.expanduser(path))

    def identity(self) -> dict[str, Any]:
        """Leave out the path of the weights, whose content counts, and what has no effect."""
        values = self.model_dump(mode="json", exclude={"strict"}) | {"weights": None}
        trained = self.pretrained or self.weights
        if self.input_size == "images" or (self.input_size == "auto" and not trained):
            del values["input_size"]
        return values

    def without_weights(self, stored: Path) -> Self:
        """Build the network of a finished run: download nothing, and read only the run's own file."""
        bare = self.model_copy(update={"weights": str(stored)} if self.weights else {})
        bare._loads = False
        return bare


def start(name: str, options: TimmOptions) -> BackboneStart:
    """Say whether the options mean trained weights, and the side of photos that these want."""
    framing = _framing(name, options)
    return BackboneStart(
        trained=options.pretrained or options.weights is not None,
        side=framing.shorter if framing else None,
    )


class TimmBackbone(Backbone):
    """Compute pooled features ``(B, D)`` with a timm model, which includes the input normalisation.

    A ResNet's ImageNet stem reduces images to a quarter of their side, which is too small for images under
    64 pixels. As in SimCLR's CIFAR experiments (arXiv:2002.05709, appendix B.9), one 3×3 convolution of
    stride 1 replaces that stem.

    Trained weights get images as they were trained: at their size, scaled and cropped as timm states it, and
    with their statistics.
    """

    mean: Tensor
    std: Tensor
    input_size: Tensor
    model: Any

    def __init__(self, name: str, options: TimmOptions, info: ImageInfo) -> None:
        super().__init__()
        self.name = name
        self.framing = _framing(name, options)
        self.pretrained = options.pretrained or options.weights is not None
        size = (self.framing.size,) * 2 if self.framing else (info.height, info.width)
        model = _create(name, options, info.channels, size)
        small_image = min(size) < SMALL_IMAGE
        has_resnet_stem = isinstance(getattr(model, "maxpool", None), nn.MaxPool2d) and hasattr(
            model, "conv1"
        )
        earlier = _earlier(options)
        # Other networks have a 3x3 convolution of their own at this place.
        of_run = earlier.small_stem and has_resnet_stem if earlier else None
        wanted = of_run if options.stem is None else options.stem
        if wanted and not has_resnet_stem:
            raise ComponentError(
                f"backbone {name!r} has no ResNet stem to replace; leave backbone.stem unset"
            )
        by_default = small_image and has_resnet_stem and not self.pretrained
        self.small_stem = by_default if wanted is None else wanted
        as_given = ", as asked" if options.stem else ", as in its run"
        self.stem_reason = as_given if wanted else f", images are under {SMALL_IMAGE} px"
        if self.small_stem:
            model.conv1 = nn.Conv2d(info.channels, model.bn1.num_features, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
            model.maxpool = nn.Identity()
        self.model = model
        mean, std = _statistics(name, options, info)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        if self.framing:  # a run that starts from this backbone brings its images to the same size
            self.register_buffer("input_size", torch.tensor(self.framing.size))
        self.weights = _load_weights(self, options, info.channels)
        self.width = _measure_width(self, name, info)

    def describe(self) -> str:
        stem = f"3x3 stem without max-pool{self.stem_reason}" if self.small_stem else "own stem"
        millions = sum(p.numel() for p in self.parameters()) / 1e6
        said = [self.name, f"{millions:.1f} M parameters", f"{self.width} features", stem]
        said += [self.framing.describe()] if self.framing else []
        return ", ".join([*said, *([self.weights] if self.weights else [])])

    def for_inference(self) -> nn.Module:
        """Return a copy whose batch norms are folded into its convolutions; itself if there are none."""
        if not any(isinstance(module, nn.BatchNorm2d) for module in self.modules()):
            return self  # a copy of a large transformer would be for nothing
        copy = deepcopy(self)
        return copy if fold_batch_norm(copy.model) else self

    def forward(self, images: Tensor) -> Tensor:
        if self.framing is None or self.training or torch.is_grad_enabled():
            return self._features(images)
        at_once = max(1, PIXELS_AT_ONCE // self.framing.size**2)
        return torch.cat([self._features(part) for part in images.split(at_once)])

    def _features(self, images: Tensor) -> Tensor:
        if self.framing is not None:
            images = self.framing(images)
        return self.model((images - self.mean) / self.std)


def _framing(name: str, options: TimmOptions) -> Framing | None:
    """Return how images are brought to the network's size; None if they keep their own."""
    size = options.input_size
    if size == "auto":
        if earlier := _earlier(options):
            size = earlier.input_size or "images"
        elif not (options.pretrained or options.weights):
            size = "images"
    if size == "images":
        return None
    return Framing.of(_data_config(name), None if size == "auto" else int(size))


def _earlier(options: TimmOptions) -> RunBackbone | None:
    """Return what the backbone of the earlier run is like that the options name, if they name one."""
    return backbone_of_a_run(Path(options.weights)) if options.weights else None


def _data_config(name: str) -> dict[str, Any]:
    """Return what timm states about the images that the weights of a model expect."""
    try:
        stated: Any = timm.get_pretrained_cfg(name)
        return resolve_data_config(pretrained_cfg=stated.to_dict())
    except Exception as error:  # timm knows the network, but no weights of this tag
        raise ComponentError(f"timm has no weights for backbone {name!r} ({text_of(error)[:200]})") from None


def _create(name: str, options: TimmOptions, channels: int, size: tuple[int, ...]) -> Any:
    downloads = options.pretrained and not options.weights and options._loads
    arguments: dict = {"pretrained": downloads, "num_classes": 0, "in_chans": channels}
    if timm.models.is_model_in_modules(name, {"resnet"}):
        # timm initialises residual branches at zero. Then only the shortcuts remain, which sample one pixel
        # in 64, and a momentum teacher has nothing to teach at the start (digits, BYOL: 5-NN 0.72 against
        # 0.96).
        arguments["zero_init_last"] = False
    if options.drop_path:
        arguments["drop_path_rate"] = options.drop_path
    if timm.get_pretrained_cfg_value(name, "fixed_input_size"):
        arguments["img_size"] = size  # position embeddings are scaled to it
    with cache_alone_without_network() if downloads else nullcontext(False) as offline:
        try:
            return timm.create_model(name, **arguments)
        except Exception as error:  # timm, its hub client and its models raise many kinds
            why = text_of(error)[:200]
    cure = f"it may not accept {channels}x{size[0]}x{size[1]} images or an option"
    if offline:
        why = "the hub is not reached, and its cache does not hold the weights"
    if downloads:
        cure = "without a network use `backbone.weights=FILE`"
    raise ComponentError(f"timm cannot build backbone {name!r} ({why}); {cure}")


def _statistics(
    name: str, options: TimmOptions, info: ImageInfo
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation that trained weights expect, otherwise those of the data."""
    if not options.pretrained and (not options.weights or options.input_size == "images"):
        return info.mean, info.std
    config = _data_config(name)
    mean, std = config["mean"], config["std"]
    return (mean, std) if info.channels == 3 else ((sum(mean) / 3,), (sum(std) / 3,))


def _load_weights(backbone: TimmBackbone, options: TimmOptions, channels: int) -> str:
    """Load the file of the options, if there is one; describe the weights in a few words."""
    if not options.weights:
        return "weights of timm" if options.pretrained else ""
    if not options._loads:
        return "weights of its run"
    path = Path(options.weights)
    if not backbone_of_a_run(path):
        return load_foreign(backbone.model, path, channels, options.strict)
    own = {"input_size": backbone.input_size} if backbone.framing else {}
    try:
        state = {name: value for name, value in read_tensors(path)[0].items() if name != "input_size"}
        backbone.load_state_dict(state | own, strict=True)
    except RuntimeError as error:
        raise ComponentError(
            f"backbone.weights: {path} does not fit {backbone.name!r}: {text_of(error)[:200]}"
        ) from None
    return f"weights of {path}"


def _measure_width(backbone: Backbone, name: str, info: ImageInfo) -> int:
    """Measure the number of features with one image, which also tests that the model accepts its size."""
    training = backbone.training
    try:
        with torch.no_grad():
            out = backbone.eval()(torch.zeros(1, info.channels, info.height, info.width))
    except Exception as error:  # models check their input by assertions as well
        why = fault_of(error)[:200]
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


resnet18 = partial(TimmBackbone, "resnet18")
start_of_resnet18 = partial(start, "resnet18")


def resolve(name: str) -> ComponentSpec | None:
    """Accept any name that ``timm.create_model`` knows, with or without a pretrained tag."""
    if not timm.is_model(name):
        return None
    return ComponentSpec(
        name, f"{name} of timm", partial(TimmBackbone, name), options=TimmOptions, start=partial(start, name)
    )


def names() -> Iterable[str]:
    """List the names of all timm models."""
    return timm.list_models()

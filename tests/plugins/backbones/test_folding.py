"""Batch norms are folded into convolutions where that changes nothing but the time."""

from __future__ import annotations

from copy import deepcopy

import pytest
import timm
import torch
from timm.layers import StdConv2d
from torch import Tensor, nn

from ebsc_core.plugins.interfaces import ImageInfo
from ebsc_plugins.backbones.folding import fold_batch_norm
from ebsc_plugins.backbones.timm_models import TimmBackbone, TimmOptions


def trained(model: nn.Module) -> nn.Module:
    """The model in evaluation mode, with batch norms unlike those of a new one."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 2.0),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.3, 0.3),
            ):
                assert values is not None
                values.data.uniform_(low, high, generator=generator)
    return model.eval()


def folded(model: nn.Module) -> tuple[int, float]:
    """The number of pairs, and the largest difference of the outputs relative to the largest output."""
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = model(images)
        pairs = fold_batch_norm(model)
        after = model(images)
    return pairs, float((after - before).abs().max() / before.abs().max())


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("resnet18", 0),
        ("test_efficientnet", 0),  # with activations inside the norms
        ("tf_mobilenetv3_small_minimal_100", 0),  # with a padding that each image decides
        ("resnetv2_50", 17),  # norms come before convolutions
    ],
)
def test_models_of_timm_give_the_same(name: str, left: int) -> None:
    model = trained(timm.create_model(name, num_classes=0))
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    pairs, difference = folded(model)
    assert norms - pairs == left
    assert sum(isinstance(module, nn.BatchNorm2d) for module in model.modules()) == left
    assert difference < 1e-4


def test_a_model_without_batch_norm_stays() -> None:
    assert folded(timm.create_model("test_vit", num_classes=0, img_size=32).eval()) == (0, 0)


class Net(nn.Module):
    """A convolution, a batch norm, and what each case does with them."""

    def __init__(self, convolution: nn.Module | None = None) -> None:
        super().__init__()
        self.convolution = convolution or nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.convolution(images))


class UsesTheOutputTwice(Net):
    def forward(self, images: Tensor) -> Tensor:
        maps = self.convolution(images)
        return maps + self.norm(maps)


class AppliesTheConvolutionTwice(Net):
    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.convolution(self.convolution(images)))


class AppliesTheNormTwice(Net):
    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.norm(self.convolution(images)))


class LooksAtValues(Net):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images if images.mean() > 0 else -images)


class Halving(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) / 2


class HasItsOwnNorm(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = Halving(3)


def test_a_pair_is_folded() -> None:
    count, difference = folded(trained(Net()))
    assert count == 1
    assert difference < 1e-5


@pytest.mark.parametrize(
    "model",
    [
        UsesTheOutputTwice(),
        AppliesTheConvolutionTwice(),
        AppliesTheNormTwice(),
        LooksAtValues(),
        HasItsOwnNorm(),
        Net(StdConv2d(3, 3, 3, padding=1)),
    ],
    ids=lambda model: type(model).__name__,
)
def test_what_would_change_the_features_stays(model: Net) -> None:
    assert folded(trained(model)) == (0, 0)


def test_the_backbone_itself_trains_on() -> None:
    info = ImageInfo(3, 32, 32, (0.5,) * 3, (0.25,) * 3)
    backbone = TimmBackbone("test_resnet", TimmOptions(), info)
    trained(backbone)
    names = {name: type(module) for name, module in backbone.named_modules()}
    images = torch.rand(4, 3, 32, 32)
    fast = backbone.for_inference()
    with torch.no_grad():
        torch.testing.assert_close(fast(images), backbone(images), rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    assert {name: type(module) for name, module in backbone.named_modules()} == names
    before = deepcopy(fast.state_dict())
    backbone.train()(images).square().sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    assert all(torch.equal(value, before[name]) for name, value in fast.state_dict().items())


def test_a_backbone_without_batch_norm_is_not_copied() -> None:
    info = ImageInfo(3, 32, 32, (0.5,) * 3, (0.25,) * 3)
    backbone = TimmBackbone("test_vit", TimmOptions(), info)
    assert backbone.for_inference() is backbone

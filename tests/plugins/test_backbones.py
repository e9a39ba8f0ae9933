from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ebsc_core.config.options import Options
from ebsc_core.plugins.interfaces import ImageInfo
from ebsc_core.plugins.registry import Kind, Registry
from ebsc_core.utils.errors import ComponentError
from ebsc_plugins.backbones import timm_models
from ebsc_plugins.backbones.identity import Identity
from ebsc_plugins.backbones.timm_models import TimmBackbone, TimmOptions

OneLine = Callable[[pytest.ExceptionInfo[ComponentError]], str]


def info(side: int, channels: int = 3) -> ImageInfo:
    return ImageInfo(channels, side, side, (0.4,) * channels, (0.2,) * channels)


def build(name: str, side: int, channels: int = 3, **options: Any) -> TimmBackbone:
    return TimmBackbone(name, TimmOptions(**options), info(side, channels))


def images(side: int, channels: int = 3) -> Tensor:
    return torch.rand(2, channels, side, side)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "side"),
    [("resnet10t", 32), ("resnet10t", 64), ("test_vit", 32), ("test_convnext", 32), ("test_resnet", 8)],
)
def test_features_are_as_wide_as_announced(name: str, side: int, channels: int) -> None:
    backbone = build(name, side, channels)
    features = backbone(images(side, channels))
    assert features.shape == (2, backbone.width)
    assert bool(torch.isfinite(features).all())
    features.sum().backward()


def resolution(backbone: TimmBackbone, side: int) -> int:
    """Side of the last feature map before pooling."""
    with torch.no_grad():
        return int(backbone.model.forward_features(images(side)).shape[-1])


@pytest.mark.parametrize(
    ("side", "stem", "expected"),
    [(32, None, 4), (63, None, 8), (64, None, 2), (32, False, 1), (64, True, 8)],
)
def test_the_stem_keeps_small_images_large(side: int, stem: bool | None, expected: int) -> None:
    assert resolution(build("resnet18", side, stem=stem), side) == expected


def test_a_deep_stem_is_replaced_as_a_whole() -> None:
    backbone = build("resnet10t", 32)
    assert backbone.small_stem
    assert resolution(backbone, 32) == 4
    assert backbone.width == 512


def test_the_announcement_says_which_stem_and_why() -> None:
    assert "images are under 64 px" in build("test_resnet", 32).describe()
    assert "own stem" in build("test_resnet", 64).describe()
    forced = build("test_resnet", 64, stem=True).describe()
    assert "3x3 stem" in forced
    assert "under 64" not in forced
    assert "test_vit" in build("test_vit", 32).describe()


def test_a_stem_that_is_not_there_cannot_be_replaced(one_line: OneLine) -> None:
    with pytest.raises(ComponentError, match=r"backbone\.stem") as error:
        build("test_vit", 32, stem=True)
    one_line(error)


@pytest.mark.parametrize(("name", "side"), [("vit_tiny_patch16_224", 32), ("convnext_atto", 32)])
def test_networks_for_large_images_take_32_px(name: str, side: int) -> None:
    backbone = build(name, side)
    assert backbone(images(side)).shape == (2, backbone.width)


@pytest.mark.parametrize(("name", "side"), [("vit_tiny_patch16_224", 8), ("inception_v3", 32)])
def test_images_too_small_for_the_network_are_one_line(one_line: OneLine, name: str, side: int) -> None:
    with pytest.raises(ComponentError) as error:
        build(name, side)
    assert f"{side}x{side}" in one_line(error)


@pytest.mark.parametrize(
    ("complaint", "said"),
    [(AssertionError("height must be 224\nand more"), "height must be 224"), (ValueError(), "ValueError")],
)
def test_a_network_that_fails_in_its_own_way_is_one_line(
    one_line: OneLine, monkeypatch: pytest.MonkeyPatch, complaint: Exception, said: str
) -> None:
    class Picky(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise complaint

    monkeypatch.setattr(timm_models.timm, "create_model", lambda *_, **__: Picky())
    with pytest.raises(ComponentError, match=said) as error:
        build("test_resnet", 32)
    assert "32x32" in one_line(error)


def test_an_option_the_network_does_not_have_is_one_line(one_line: OneLine) -> None:
    with pytest.raises(ComponentError, match="vgg11") as error:
        build("vgg11", 32, drop_path=0.1)
    one_line(error)


def test_values_are_normalized_inside() -> None:
    backbone = build("test_resnet", 32).eval()
    x = images(32)
    torch.testing.assert_close(backbone(x), backbone.model((x - 0.4) / 0.2))


def test_measuring_the_width_leaves_no_trace() -> None:
    backbone = build("test_resnet", 32)
    assert backbone.training
    counts = [m.num_batches_tracked.item() for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert counts
    assert not any(counts)


def test_weights_from_a_file(tmp_path: Path) -> None:
    saved = build("test_resnet", 32).eval()
    save_file(saved.state_dict(), tmp_path / "w.safetensors")
    torch.manual_seed(1)
    loaded = build("test_resnet", 32, weights=str(tmp_path / "w.safetensors")).eval()
    x = images(32)
    torch.testing.assert_close(loaded(x), saved(x))


def test_weights_that_do_not_fit_are_one_line(one_line: OneLine, tmp_path: Path) -> None:
    state = build("test_resnet", 32).state_dict()
    name, tensor = next((n, t) for n, t in state.items() if t.ndim == 4 and len(t) > 1)
    missing = {n: t for n, t in state.items() if n != name}
    for wrong in (missing, state | {name: tensor[:1].clone()}, state | {"extra": torch.zeros(1)}):
        save_file(wrong, tmp_path / "w.safetensors")
        with pytest.raises(ComponentError, match=r"backbone\.weights.*does not fit") as error:
            build("test_resnet", 32, weights=str(tmp_path / "w.safetensors"))
        one_line(error)


@pytest.mark.parametrize("content", [None, b"", b"not a tensor in sight"])
def test_a_file_without_weights_is_one_line(one_line: OneLine, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "w.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ComponentError, match=r"w\.safetensors") as error:
        build("test_resnet", 32, weights=str(file))
    one_line(error)


def test_a_folder_is_no_weights(tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match="not a file"):
        build("test_resnet", 32, weights=str(tmp_path))


def test_pretrained_without_a_network_says_what_to_do(
    one_line: OneLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("ebsc_plugins.backbones.hub.getproxies", dict)  # those of the machine
    began = time.monotonic()
    with pytest.raises(ComponentError, match=r"not reached.*backbone\.weights") as error:
        build("resnet10t", 32, pretrained=True)
    assert time.monotonic() - began < 20  # the client alone would try for a minute
    assert not constants.HF_HUB_OFFLINE
    one_line(error)


def test_only_names_timm_knows_are_resolved() -> None:
    assert timm_models.resolve("resnet_of_mine") is None
    assert Registry().find(Kind.BACKBONE, "convnext_atto").options_class is TimmOptions


@pytest.mark.parametrize("channels", [1, 3])
def test_identity_gives_the_pixels(channels: int) -> None:
    backbone = Identity(Options(), info(4, channels))
    x = images(4, channels)
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        torch.testing.assert_close(backbone(given), x.reshape(2, -1))
    assert backbone.width == channels * 16
    assert str(backbone.width) in backbone.describe()


def test_trained_weights_get_images_of_their_size(tmp_path: Path) -> None:
    donor = timm.create_model("test_resnet", num_classes=7).eval()
    save_file(donor.state_dict(), tmp_path / "w.safetensors")
    backbone = build("test_resnet", 32, weights=str(tmp_path / "w.safetensors")).eval()
    assert not backbone.small_stem
    assert "images brought to 160x160" in backbone.describe()
    assert timm_models.start("test_resnet", TimmOptions(weights="w")).trained
    x = images(32)
    config = timm.data.resolve_model_data_config(donor)
    mean, std = (torch.tensor(config[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    assert backbone.framing
    expected = donor.forward_head(donor.forward_features((backbone.framing(x) - mean) / std), pre_logits=True)
    torch.testing.assert_close(backbone(x), expected)
    many = x.repeat(40, 1, 1, 1)
    with torch.no_grad():  # more than are computed at a time
        torch.testing.assert_close(backbone(many), expected.repeat(40, 1), rtol=1e-4, atol=1e-4)


def test_other_networks_keep_the_size_of_the_images(tmp_path: Path) -> None:
    own = build("test_resnet", 32)
    save_file(own.state_dict(), tmp_path / "own.safetensors")
    again = TimmOptions(weights=str(tmp_path / "own.safetensors"))
    for options in (TimmOptions(), again, TimmOptions(pretrained=True, input_size="images")):
        assert timm_models.start("test_resnet", options).side is None
    assert TimmBackbone("test_resnet", again, info(32)).framing is None
    assert timm_models.start("test_resnet", TimmOptions(input_size=95)).side == 100
    assert not timm_models.start("test_resnet", TimmOptions(input_size=95)).trained


def test_digests_know_the_size_only_where_it_matters() -> None:
    before = {"pretrained": False, "weights": None, "stem": None, "drop_path": 0.0}
    assert TimmOptions().identity() == before
    assert TimmOptions(input_size="images").identity() == before
    assert TimmOptions(input_size=64).identity() == before | {"input_size": 64}
    sized = {"input_size": "auto"}
    assert TimmOptions(pretrained=True).identity() == before | sized | {"pretrained": True}
    assert TimmOptions(weights="some/file").identity() == before | sized


def test_a_finished_run_needs_no_download() -> None:
    bare = TimmOptions(pretrained=True).without_weights(Path("backbone.safetensors"))
    backbone = TimmBackbone("test_resnet", bare, info(32))
    assert backbone.framing
    assert backbone.pretrained
    assert TimmOptions(pretrained=True)._loads


def test_the_network_of_a_run_is_built_again_whatever_its_first_convolution_is(tmp_path: Path) -> None:
    """Not each 3x3 convolution of this name is the small stem of a ResNet."""
    foreign, stored = tmp_path / "foreign.safetensors", tmp_path / "backbone.safetensors"
    save_file(timm.create_model("legacy_xception", num_classes=0).state_dict(), foreign)
    options = TimmOptions(weights=str(foreign), input_size=71)
    first = TimmBackbone("legacy_xception", options, info(71))
    save_file(first.state_dict(), stored)
    foreign.unlink()
    again = TimmBackbone("legacy_xception", options.without_weights(stored), info(71))
    again.load_state_dict(first.state_dict())
    images = torch.rand(2, 3, 71, 71)
    with torch.no_grad():
        assert torch.equal(again.eval()(images), first.eval()(images))


def test_a_tag_that_timm_does_not_have_is_one_line(one_line: OneLine) -> None:
    with pytest.raises(ComponentError, match=r"test_resnet\.none") as error:
        build("test_resnet.none", 32, pretrained=True)
    one_line(error)


@pytest.mark.parametrize(
    ("name", "size", "width"),
    [
        ("vit_xsmall_patch16_clip_224", 32, 256),
        ("vit_small_patch14_dinov2", 28, 384),
        ("vit_small_patch16_dinov3", 32, 384),
        pytest.param("vit_base_patch16_clip_224", 32, 768, marks=pytest.mark.slow),
        pytest.param("vit_base_patch16_siglip_224", 32, 768, marks=pytest.mark.slow),
        pytest.param("vit_small_patch14_reg4_dinov2", 28, 384, marks=pytest.mark.slow),
    ],
)
def test_transformers_of_large_sets_take_any_size_and_give_features_before_the_head(
    tmp_path: Path, name: str, size: int, width: int
) -> None:
    donor = timm.create_model(name).eval()
    save_file({key: value.contiguous() for key, value in donor.state_dict().items()}, tmp_path / "w")
    backbone = build(name, 20, weights=str(tmp_path / "w"), input_size=size).eval()
    features = backbone(images(20))
    assert features.shape == (2, backbone.width) == (2, width)
    assert bool(torch.isfinite(features).all())


def test_the_record_says_whether_there_is_anything_to_train() -> None:
    registry = Registry()
    for name in ("identity", "pca", "scattering", "resnet10t"):
        component = registry.find(Kind.BACKBONE, name)
        built = component.factory(component.options_class(), info(32))
        assert component.spec.trainable == any(p.requires_grad for p in built.parameters())

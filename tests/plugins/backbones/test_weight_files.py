"""Weights of other programs: what is read, what is left out, and what is said about it."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from ebsc_core.utils.errors import ComponentError
from ebsc_plugins.backbones.weight_files import RunBackbone, backbone_of_a_run, load_foreign

OneLine = Callable[[pytest.ExceptionInfo[ComponentError]], str]


def network(name: str = "test_resnet", **options: Any) -> Any:
    return timm.create_model(name, **{"num_classes": 0, **options})


@pytest.fixture
def donor() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return network(num_classes=5).state_dict()


def under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in state.items()}


def loaded(path: Path, donor: dict[str, torch.Tensor], strict: bool = True) -> str:
    """Load a file, check that all tensors came in, and return what is said."""
    model = network()
    said = load_foreign(model, path, 3, strict)
    for name, value in model.state_dict().items():
        assert torch.equal(value, donor[name]), name
    return said


def test_a_safetensors_file_under_any_name(tmp_path: Path, donor: dict[str, torch.Tensor]) -> None:
    save_file(donor, tmp_path / "weights")
    assert "(without fc.bias, fc.weight)" in loaded(tmp_path / "weights", donor)


@pytest.mark.parametrize("nested", [(), ("state_dict",), ("model",), ("teacher",), ("model", "state_dict")])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.encoder.", "model."])
@pytest.mark.parametrize("old", [False, True])
def test_a_checkpoint_of_torch(
    tmp_path: Path, donor: dict[str, torch.Tensor], nested: tuple[str, ...], prefix: str, old: bool
) -> None:
    held: Any = under(prefix, donor)
    for name in reversed(nested):
        held = {name: held, "epoch": 3, "args": argparse.Namespace(lr=0.1)}
    torch.save(held, tmp_path / "w.pth", _use_new_zipfile_serialization=not old)
    said = loaded(tmp_path / "w.pth", donor)
    assert (f"prefix {prefix!r} removed" in said) == bool(prefix)
    assert all(f"its entry {name!r}" in said for name in nested)


def test_parts_beside_the_network_are_left_out_and_said(
    tmp_path: Path, donor: dict[str, torch.Tensor]
) -> None:
    held = under("backbone.", donor) | {"projector.0.weight": torch.zeros(2)}
    torch.save(held, tmp_path / "w.pth")
    said = loaded(tmp_path / "w.pth", donor)
    assert "prefix 'backbone.' removed" in said
    assert "projector.0.weight" in said


def test_weights_of_torchvision(tmp_path: Path) -> None:
    other = torchvision.models.resnet18(num_classes=3).eval()
    torch.save(other.state_dict(), tmp_path / "w.pth")
    model = network("resnet18").eval()
    load_foreign(model, tmp_path / "w.pth", 3, True)
    x = torch.rand(1, 3, 64, 64)
    other.fc = torch.nn.Identity()
    torch.testing.assert_close(model(x), other(x))


def test_gray_images_get_the_sum_over_colors(tmp_path: Path, donor: dict[str, torch.Tensor]) -> None:
    save_file(donor, tmp_path / "w")
    model = network(in_chans=1)
    load_foreign(model, tmp_path / "w", 1, True)
    first = model.pretrained_cfg["first_conv"] + ".weight"
    torch.testing.assert_close(model.state_dict()[first], donor[first].sum(1, keepdim=True))


def test_position_embeddings_are_scaled(tmp_path: Path) -> None:
    save_file(network("test_vit").state_dict(), tmp_path / "w")
    model = network("test_vit", img_size=32)
    load_foreign(model, tmp_path / "w", 3, True)
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, model.num_features)


@pytest.mark.parametrize("change", ["missing", "unknown", "shape", "other"])
def test_what_does_not_fit_is_named_in_one_line(
    one_line: OneLine, tmp_path: Path, donor: dict[str, torch.Tensor], change: str
) -> None:
    name = "layer1.0.conv1.weight"
    held = {
        "missing": {key: value for key, value in donor.items() if key != name},
        "unknown": donor | {"extra.weight": torch.zeros(1)},
        "shape": donor | {name: torch.zeros(1, 1, 1, 1)},
        "other": {"something.else": torch.zeros(3)},
    }[change]
    save_file(held, tmp_path / "w")
    with pytest.raises(ComponentError, match="does not fit 'test_resnet'") as error:
        load_foreign(network(), tmp_path / "w", 3, True)
    said = one_line(error)
    assert {"unknown": "extra.weight", "other": "something.else"}.get(change, name) in said
    assert ("`backbone.strict=false`" in said) == (change in ("missing", "unknown"))


def test_the_rest_loads_if_asked_and_the_announcement_says_what_is_random(
    tmp_path: Path, donor: dict[str, torch.Tensor]
) -> None:
    left_out = "layer1.0.conv1.weight"
    held = {key: value for key, value in donor.items() if key != left_out} | {"extra": torch.zeros(1)}
    save_file(held, tmp_path / "w")
    model = network()
    said = load_foreign(model, tmp_path / "w", 3, False)
    assert f"random {left_out}" in said
    assert "extra" in said
    assert torch.equal(model.conv1[0].weight, donor["conv1.0.weight"])


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("executed",)


@pytest.mark.parametrize("kind", ["evil", "pickle", "empty", "text", "no tensors"])
def test_other_files_are_one_line_and_execute_nothing(
    one_line: OneLine, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path = tmp_path / "w.pth"
    if kind in ("evil", "no tensors"):
        torch.save({"model": Evil()} if kind == "evil" else {"epoch": 3}, path)
    else:
        path.write_bytes({"pickle": pickle.dumps(Evil()), "empty": b"", "text": b"x" * 100}[kind])
    with pytest.raises(ComponentError, match=r"backbone\.weights: .*w\.pth") as error:
        load_foreign(network(), path, 3, True)
    one_line(error)
    assert "executed" not in capsys.readouterr().out


def test_the_backbone_of_a_run_is_known_by_its_statistics(
    tmp_path: Path, donor: dict[str, torch.Tensor]
) -> None:
    statistics = {"mean": torch.zeros(3), "std": torch.ones(3)}
    save_file(under("model.", donor) | statistics, tmp_path / "run")
    assert backbone_of_a_run(tmp_path / "run") == RunBackbone(None, False)
    small = {"model.conv1.weight": torch.zeros(8, 3, 3, 3), "input_size": torch.tensor(96)}
    save_file(small | statistics, tmp_path / "small")
    assert backbone_of_a_run(tmp_path / "small") == RunBackbone(96, True)
    save_file(donor, tmp_path / "timm")
    assert backbone_of_a_run(tmp_path / "timm") is None
    assert backbone_of_a_run(tmp_path / "none") is None
